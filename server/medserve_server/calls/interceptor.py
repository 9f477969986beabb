"""Interceptor of all calls: authentication, limits, metrics and error mapping."""

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

if TYPE_CHECKING:  # generic only for the type checker
    Handler = grpc.RpcMethodHandler[Any, Any]
else:
    Handler = grpc.RpcMethodHandler


class CallInterceptor(aio.ServerInterceptor):
    """Authenticates clients, enforces limits, records metrics, and maps a ServingError to its gRPC status.

    Args:
        metrics: metrics that record the calls of known methods.
        stopping: once set, new calls are refused.
        limits: limits on concurrent calls and rates.
        tokens: tokens of the clients; None disables authentication by token.
        observers: notified of finished calls.
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
        """Waits until no call has arrived for `QUIET_SECONDS`, but at most about `longest` seconds."""
        end = time.monotonic() + longest
        await asyncio.sleep(QUIET_POLL_INTERVAL)
        while time.monotonic() < min(end, self._last_start + QUIET_SECONDS):  # noqa: ASYNC110 - depends only on the clock
            await asyncio.sleep(QUIET_POLL_INTERVAL)

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Handler | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Handler | None:
        """Returns a method's handler, which is wrapped when the method is first called."""
        method = handler_call_details.method
        if method not in self._wrapped:
            handler = await continuation(handler_call_details)
            if handler is None:  # unknown method: grpc responds with UNIMPLEMENTED
                return None
            self._wrapped[method] = self._wrap(method, handler)
        admitted = self.admit(method, lambda: handler_call_details.invocation_metadata)
        if admitted is not None and admitted.unary_unary is not None:
            # Detects a call that ends before its message reaches the handler; grpc has no other notification for this.
            _this_task().add_done_callback(self.count_unread)
        return admitted

    def add_generic_rpc_handlers(self, handlers: Sequence[grpc.GenericRpcHandler]) -> None:
        """Does nothing: the generated code also registers the same methods by name."""

    def add_registered_method_handlers(self, service: str, handlers: Mapping[str, Handler]) -> None:
        """Registers the methods of a service; called by the generated code for transports other than grpcio."""
        for name, handler in handlers.items():
            path = f"/{service}/{name}"
            self._wrapped[path] = self._wrap(path, handler)

    def has(self, path: str) -> bool:
        """Returns whether a method is registered at this path; for transports other than grpcio."""
        return path in self._wrapped

    def admit(self, path: str, metadata: Callable[[], Metadata]) -> Handler | None:
        """Authenticates a call and checks the limits before its message is read.

        Args:
            path: path of the method.
            metadata: returns the metadata of the call.

        Returns:
            The method's handler, to be called in the same task, or a handler that ends the call with an error; None if
            the method is unknown.
        """
        handler = self._wrapped.get(path)
        if handler is None:
            return None
        try:
            # The handler reads the grant from the context of its task.
            GRANT.set(ANYONE if self._tokens is None else self._tokens.client(path, metadata()))
            if not path.startswith(HEALTH):
                self._limits.check()
        except ServingError as error:
            return self.refusal(path, error)
        return handler

    def count_unread(self, _: object = None) -> None:
        """Counts a call that ended before its message reached the handler."""
        self._metrics.unread.inc()

    def refusal(self, path: str, error: ServingError) -> Handler:
        """Returns a streaming handler that ends a call with an error without reading its message."""

        async def refuse(_: AsyncIterator[bytes], context: Context) -> None:
            async with _Call(self._counted[path], context, self._observers):
                raise error

        behavior: Any = refuse  # typed for grpc's synchronous servers
        return grpc.stream_stream_rpc_method_handler(behavior)

    def _wrap(self, path: str, handler: Handler) -> Handler:
        # Messages are parsed in the handler: grpc would log each invalid message with its bytes.
        parse = _parser(handler.request_deserializer or bytes)
        codec = (None, handler.response_serializer)
        metrics = MethodMetrics(self._metrics, KINDS[handler.request_streaming, handler.response_streaming], path)
        self._counted[path] = metrics
        # Health checks have to be answered while the server is stopping or overloaded.
        stopping = None if path.startswith("/grpc.") else self._stopping
        limits = None if path.startswith(HEALTH) else self._limits

        def call(context: Any) -> _Call:  # noqa: ANN401 - of grpc.aio, or an HttpCall
            self._last_start = time.monotonic()
            if not isinstance(context, HttpCall):  # grpcio's context: see intercept_service
                _this_task().remove_done_callback(self.count_unread)
            return _Call(metrics, context, self._observers, stopping, limits, self._tokens)

        if handler.unary_unary is not None:
            return grpc.unary_unary_rpc_method_handler(_unary(handler.unary_unary, call, parse), *codec)
        if handler.stream_stream is not None:
            behavior: Any = handler.stream_stream  # typed for grpc's synchronous servers
            return grpc.stream_stream_rpc_method_handler(_stream(behavior, call, parse), *codec)
        behavior = handler.unary_stream
        return grpc.unary_stream_rpc_method_handler(_watch(behavior, call, parse), *codec)


def _this_task() -> asyncio.Task[Any]:
    """Returns the task of the call, in which both the interceptor and the handler run."""
    return cast("asyncio.Task[Any]", asyncio.current_task())


class _Call:
    """Measures one call, records its outcome, and maps a ServingError to its status."""

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
        """Records the start of the call."""
        self._start_time = time.monotonic()
        self._metrics.started()
        if self._observers:
            metadata = self._context.invocation_metadata() or ()
            self._record = follow(self._observers, self._metrics.path, self._caller, metadata)
            CALL_RECORD.set(self._record)

    @property
    def _caller(self) -> str:
        """The client: the name of its token, else the name in its certificate, else its address."""
        return GRANT.get().client or _certificate_name(self._context) or client_of(self._context.peer())

    def admit(self) -> None:
        """Refuses the call if the server is stopping or the client exceeds its limits.

        grpc itself would end a call that arrives during its shutdown with CANCELLED, which clients do not retry.
        """
        if self._stopping is not None and self._stopping.is_set():
            raise Unavailable("the server is stopping; retry on another server")
        if self._limits is not None:
            client = self._caller
            self._limits.enter(client)
            self._client = client

    async def metered(self, payloads: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        """Yields a stream's messages at the client's rate limit, and checks its token for each message."""
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
        """Records the end of the call."""
        self._metrics.ended(code, time.monotonic() - self._start_time)
        if self._record is not None:
            self._record.end(code)
        if self._limits is not None and self._client is not None:
            self._limits.leave(self._client)

    async def fail(self, error: BaseException) -> None:
        """Records that the call failed, and ends it with the error's status.

        Raises:
            AbortError: the call is ended with a status; not raised for errors that have already ended it.
        """
        self.end(self._code(error))
        if isinstance(error, ServingError):
            self._metrics.refused(error)
            status = to_status(error)
            await self._context.abort(STATUS[type(error)], status.message, to_trailers(status))
        if isinstance(error, Exception) and not isinstance(error, aio.AbortError):
            report("call", error, f"of {self._metrics.path}")
            await self._context.abort(grpc.StatusCode.INTERNAL, "internal server error; see the server log")

    def _code(self, error: BaseException | None) -> grpc.StatusCode:
        if isinstance(error, aio.AbortError):  # the handler aborted the call itself
            return CODES[self._context.code()]
        return status_of(error)


def _certificate_name(context: Context) -> str:
    """Returns the common name in the client's certificate; empty without one."""
    names = context.auth_context().get("x509_common_name", ())
    return next((name.decode(errors="replace") for name in names), "")


Parser = Callable[[bytes], Any]


def _parser(deserialize: Parser) -> Parser:
    def parse(payload: bytes) -> Any:  # noqa: ANN401 - of the method's request type
        try:
            return deserialize(payload)
        except DecodeError:
            raise InvalidInput.of(
                "", f"the {len(payload)} bytes of the message are not a valid request of this method"
            ) from None

    return parse


def _unary(
    behavior: Callable[..., Awaitable[object]], make_call: Callable[[Context], _Call], parse: Parser
) -> Callable[..., Awaitable[object]]:
    async def answer(payload: bytes, context: Context) -> object:
        call = make_call(context)
        call.begin()
        try:
            call.admit()
            response = await behavior(parse(payload), context)
        except BaseException as error:
            await call.fail(error)
            raise
        call.end(grpc.StatusCode.OK)
        return response

    return answer


def _watch(
    behavior: Callable[..., Awaitable[None]], make_call: Callable[[Context], _Call], parse: Parser
) -> Callable[..., Any]:
    """Wraps Health.Watch, which runs as long as the client likes: only a refused call is measured and counted."""

    async def answer(payload: bytes, context: Context) -> None:
        try:
            request = parse(payload)
        except ServingError as error:
            async with make_call(context):
                raise error from None
        await behavior(request, context)

    return answer


def _stream(
    behavior: Callable[..., AsyncIterator[Any]], make_call: Callable[[Context], _Call], parse: Parser
) -> Callable[..., AsyncIterator[Any]]:
    async def answer(payloads: AsyncIterator[bytes], context: Context) -> AsyncIterator[Any]:
        call = make_call(context)
        async with call:
            call.admit()
            requests = (parse(payload) async for payload in call.metered(payloads))
            async for response in behavior(requests, context):
                yield response

    return answer
