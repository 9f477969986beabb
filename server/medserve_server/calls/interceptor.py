"""Authentication, limits, metrics and the mapping of errors to gRPC statuses, for every call."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, cast

import grpc
from google.protobuf.message import DecodeError
from grpc import aio

from medserve_server.call_context import Context
from medserve_server.calls.http_call import HttpCall
from medserve_server.errors import STATUS, InvalidInput, ServingError, Unavailable
from medserve_server.security.auth import ANYONE, GRANT, Metadata, Tokens
from medserve_server.security.limits import CallLimits, client_of
from medserve_server.status import CODES, to_status, to_trailers
from medserve_server.supervise import report
from medserve_server.telemetry.call_record import CALL_RECORD, CallRecord, Observer, follow
from medserve_server.telemetry.metrics import MethodMetrics, Metrics, status_of

log = logging.getLogger(__name__)

HEALTH = "/grpc.health."
QUIET_SECONDS = 0.2
QUIET_POLL_INTERVAL = 0.05
KINDS = {
    (False, False): "unary",
    (True, False): "client_stream",
    (False, True): "server_stream",
    (True, True): "bidi_stream",
}

if TYPE_CHECKING:  # generic for the type checker alone
    Handler = grpc.RpcMethodHandler[Any, Any]
else:
    Handler = grpc.RpcMethodHandler


class CallInterceptor(aio.ServerInterceptor):
    """Lets in who may call, counts each call of a known method, and turns a ServingError into its status.

    Args:
        metrics: where calls are counted.
        stopping: once set, new calls are refused.
        limits: what one client may have under way.
        tokens: who may call; None where anyone may.
        observers: who is told of finished calls.
    """

    def __init__(
        self,
        metrics: Metrics,
        stopping: asyncio.Event,
        limits: CallLimits,
        tokens: Tokens | None,
        observers: Sequence[Observer],
    ) -> None:
        self._metrics = metrics
        self._observers = observers
        self._stopping = stopping
        self._limits = limits
        self._tokens = tokens
        self._wrapped: dict[str, Handler] = {}
        self._counted: dict[str, MethodMetrics] = {}
        self._last_start = time.monotonic()

    async def wait_until_quiet(self, longest: float) -> None:
        """Waits until no call has come in for `QUIET_SECONDS`, or `longest` seconds are over; at least for a look."""
        end = time.monotonic() + longest
        await asyncio.sleep(QUIET_POLL_INTERVAL)
        while time.monotonic() < min(end, self._last_start + QUIET_SECONDS):  # noqa: ASYNC110 - of the clock alone
            await asyncio.sleep(QUIET_POLL_INTERVAL)

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Handler | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Handler | None:
        """Gives a method's handler, wrapped when it is first called."""
        method = handler_call_details.method
        if method not in self._wrapped:
            handler = await continuation(handler_call_details)
            if handler is None:  # no such method: grpc answers UNIMPLEMENTED
                return None
            self._wrapped[method] = self._wrap(method, handler)
        admitted = self.admit(method, lambda: handler_call_details.invocation_metadata)
        if admitted is not None and admitted.unary_unary is not None:
            # A call that ends before its message reaches the handler: grpc does not tell Python in another way.
            _this_task().add_done_callback(self.count_unread)
        return admitted

    def add_generic_rpc_handlers(self, handlers: Sequence[grpc.GenericRpcHandler]) -> None:
        """Does nothing: the generated code adds the same methods by their names too."""

    def add_registered_method_handlers(self, service: str, handlers: Mapping[str, Handler]) -> None:
        """Adds the methods of a service, as the generated code does, for a transport other than grpc's own server."""
        for name, handler in handlers.items():
            path = f"/{service}/{name}"
            self._wrapped[path] = self._wrap(path, handler)

    def has(self, path: str) -> bool:
        """Says whether there is a method at this path, on a transport other than grpc's own server."""
        return path in self._wrapped

    def admit(self, path: str, metadata: Callable[[], Metadata]) -> Handler | None:
        """Lets a call in before its message is read.

        Args:
            path: Of the method.
            metadata: Gives the caller's metadata.

        Returns:
            The method's handler, to be called by the same task, or one that answers with the reason of a refusal; None
            where there is no such method.
        """
        handler = self._wrapped.get(path)
        if handler is None:
            return None
        try:
            # The handler finds the grant in the context of its task.
            GRANT.set(ANYONE if self._tokens is None else self._tokens.client(path, metadata()))
            if not path.startswith(HEALTH):
                self._limits.check()
        except ServingError as error:
            return self.refusal(path, error)
        return handler

    def count_unread(self, _: object = None) -> None:
        """Counts a call that ended before its message reached a handler."""
        self._metrics.unread.inc()

    def refusal(self, path: str, error: ServingError) -> Handler:
        """Gives what answers a call with an error without reading its message: a handler of streams."""

        async def refuse(_: AsyncIterator[bytes], context: Context) -> None:
            async with _Call(self._counted[path], context, self._observers):
                raise error

        behaviour: Any = refuse  # typed for grpc's synchronous servers alone
        return grpc.stream_stream_rpc_method_handler(behaviour)

    def _wrap(self, path: str, handler: Handler) -> Handler:
        # Messages are parsed inside of the call: grpc would log each that it can't parse, with its bytes.
        parse = _parser(handler.request_deserializer or bytes)
        codec = (None, handler.response_serializer)
        metrics = MethodMetrics(self._metrics, KINDS[handler.request_streaming, handler.response_streaming], path)
        self._counted[path] = metrics
        # A stopping server still has to say that it is, and a flooded one that it lives.
        stopping = None if path.startswith("/grpc.") else self._stopping
        limits = None if path.startswith(HEALTH) else self._limits

        def call(context: Any) -> _Call:  # noqa: ANN401 - of grpc.aio, or alike
            self._last_start = time.monotonic()
            if not isinstance(context, HttpCall):  # of grpc's own server: see intercept_service
                _this_task().remove_done_callback(self.count_unread)
            return _Call(metrics, context, self._observers, stopping, limits, self._tokens)

        if handler.unary_unary is not None:
            return grpc.unary_unary_rpc_method_handler(_unary(handler.unary_unary, call, parse), *codec)
        if handler.stream_stream is not None:
            behaviour: Any = handler.stream_stream  # typed for grpc's synchronous servers alone
            return grpc.stream_stream_rpc_method_handler(_stream(behaviour, call, parse), *codec)
        behaviour = handler.unary_stream
        return grpc.unary_stream_rpc_method_handler(_watch(behaviour, call, parse), *codec)


def _this_task() -> asyncio.Task[Any]:
    """The task of the call: its interceptor and its handler run in the same one."""
    return cast("asyncio.Task[Any]", asyncio.current_task())


class _Call:
    """Times one call, counts its outcome, and answers a ServingError with its status."""

    def __init__(
        self,
        metrics: MethodMetrics,
        context: Context,
        observers: Sequence[Observer],
        stopping: asyncio.Event | None = None,
        limits: CallLimits | None = None,
        tokens: Tokens | None = None,
    ) -> None:
        self._metrics = metrics
        self._context = context
        self._observers = observers
        self._stopping = stopping
        self._limits = limits
        self._tokens = tokens
        self._client: str | None = None
        self._record: CallRecord | None = None

    async def __aenter__(self) -> None:
        self.begin()

    def begin(self) -> None:
        """Notes that the call began."""
        self._began = time.monotonic()
        self._metrics.started()
        if self._observers:
            metadata = self._context.invocation_metadata() or ()
            self._record = follow(self._observers, self._metrics.path, self._caller, metadata)
            CALL_RECORD.set(self._record)

    @property
    def _caller(self) -> str:
        """The name of the client's token, else of its certificate, else its address."""
        return GRANT.get().client or _certificate_name(self._context) or client_of(self._context.peer())

    def admit(self) -> None:
        """Refuses a call that is one too many for its client, and one that comes too late.

        Left to grpc, a call that arrives in the moment of its shutdown is CANCELLED, which no client retries.
        """
        if self._stopping is not None and self._stopping.is_set():
            raise Unavailable("the server is stopping; another one may answer")
        if self._limits is not None:
            client = self._caller
            self._limits.enter(client)
            self._client = client

    async def metered(self, payloads: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        """A stream's messages, no faster than its client may send them, and only while its token holds."""
        async for payload in payloads:
            if self._tokens is not None:
                GRANT.set(self._tokens.client(self._metrics.path, self._context.invocation_metadata() or ()))
            if self._limits is not None and self._client is not None and self._limits.metered:
                await asyncio.sleep(self._limits.pay(self._client))
            yield payload

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self.end(grpc.StatusCode.OK)
        else:
            await self.fail(error)

    def end(self, code: grpc.StatusCode) -> None:
        """Notes that the call ended."""
        self._metrics.ended(code, time.monotonic() - self._began)
        if self._record is not None:
            self._record.end(code)
        if self._limits is not None and self._client is not None:
            self._limits.leave(self._client)

    async def fail(self, error: BaseException) -> None:
        """Notes that the call ended by an error, and ends it with the error's status.

        Raises:
            AbortError: where the error is not one that ended the call already.
        """
        self.end(self._code(error))
        if isinstance(error, ServingError):
            self._metrics.refused(error)
            status = to_status(error)
            await self._context.abort(STATUS[type(error)], status.message, to_trailers(status))
        if isinstance(error, Exception) and not isinstance(error, aio.AbortError):
            report("call", error, f"of {self._metrics.path}")
            await self._context.abort(grpc.StatusCode.INTERNAL, "the server failed; its log says why")

    def _code(self, error: BaseException | None) -> grpc.StatusCode:
        if isinstance(error, aio.AbortError):  # the handler ended the call itself
            return CODES[self._context.code()]
        return status_of(error)


def _certificate_name(context: Context) -> str:
    """The common name in the certificate that the client's connection was accepted for; empty without one."""
    names = context.auth_context().get("x509_common_name", ())
    return next((name.decode(errors="replace") for name in names), "")


Parser = Callable[[bytes], Any]


def _parser(deserialize: Parser) -> Parser:
    def parse(payload: bytes) -> Any:  # noqa: ANN401 - of the method's request type
        try:
            return deserialize(payload)
        except DecodeError:
            raise InvalidInput.of("", f"{len(payload)} bytes that are no message of this method") from None

    return parse


def _unary(
    behaviour: Callable[..., Awaitable[object]], make_call: Callable[[Context], _Call], parse: Parser
) -> Callable[..., Awaitable[object]]:
    async def answer(payload: bytes, context: Context) -> object:
        call = make_call(context)
        call.begin()
        try:
            call.admit()
            response = await behaviour(parse(payload), context)
        except BaseException as error:
            await call.fail(error)
            raise
        call.end(grpc.StatusCode.OK)
        return response

    return answer


def _watch(
    behaviour: Callable[..., Awaitable[None]], make_call: Callable[[Context], _Call], parse: Parser
) -> Callable[..., Any]:
    """Of Health.Watch alone. It lasts as long as its client likes: only one that is refused is timed and counted."""

    async def answer(payload: bytes, context: Context) -> None:
        try:
            request = parse(payload)
        except ServingError as error:
            async with make_call(context):
                raise error from None
        await behaviour(request, context)

    return answer


def _stream(
    behaviour: Callable[..., AsyncIterator[Any]], make_call: Callable[[Context], _Call], parse: Parser
) -> Callable[..., AsyncIterator[Any]]:
    async def answer(payloads: AsyncIterator[bytes], context: Context) -> AsyncIterator[Any]:
        call = make_call(context)
        async with call:
            call.admit()
            requests = (parse(payload) async for payload in call.metered(payloads))
            async for response in behaviour(requests, context):
                yield response

    return answer
