"""The ASGI application, called in this process as Envoy calls it: responses to any sequence of events."""

import asyncio
import gzip
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from itertools import pairwise
from typing import Any
from urllib.parse import unquote

import grpc
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medserve_server.call_context import Context
from medserve_server.calls.interceptor import CallInterceptor
from medserve_server.calls.open_calls import OpenCalls
from medserve_server.config import Settings
from medserve_server.errors import InvalidInput
from medserve_server.http.asgi import Event
from medserve_server.inputs.decoders import Decoders
from medserve_server.rest.application import Rest
from medserve_server.rest.status import status_endpoint
from medserve_server.security.limits import CallLimits
from medserve_server.telemetry.metrics import Metrics
from medserve_server.transport.application import Application
from medserve_server.transport.grpc_adapter import GrpcAdapter
from medserve_server.transport.grpc_frames import frame
from waiting import PATIENCE

MAX_BYTES = 200_000
LARGE = b"x" * 150_000
"""More than is sent without waiting."""
Headers = Sequence[tuple[bytes, bytes]]


class Echo:
    """A service with a method of each kind; one never returns."""

    def __init__(self) -> None:
        self.waiting = asyncio.Event()
        self.cancelled = asyncio.Event()

    async def same(self, request: bytes, _: Context) -> bytes:
        if request == b"wrong":
            raise InvalidInput.of("field", "is 100 % wrong, ä")
        if request == b"broken":
            raise ValueError("a secret")
        return request

    async def wait(self, _: bytes, __: Context) -> bytes:
        self.waiting.set()
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            self.cancelled.set()
        return b""

    async def each(self, requests: AsyncIterator[bytes], context: Context) -> AsyncIterator[bytes]:
        async for request in requests:
            yield await self.same(request, context)

    async def twice(self, request: bytes, context: Context) -> None:
        for _ in range(2):
            await context.write(await self.same(request, context))


class Caller:
    """Calls the application and records the events that it sends."""

    def __init__(self, stopping: bool = False, max_client_calls: int = 9) -> None:
        self.echo = Echo()
        self.open_calls = OpenCalls(MAX_BYTES)
        stop = asyncio.Event()
        if stopping:
            stop.set()
        interceptor = CallInterceptor(Metrics(), stop, CallLimits(99, max_client_calls, None), None, [])
        kinds: dict[str, grpc.RpcMethodHandler[bytes, bytes]] = {
            "Same": grpc.unary_unary_rpc_method_handler(self.echo.same, bytes, bytes),
            "Wait": grpc.unary_unary_rpc_method_handler(self.echo.wait, bytes, bytes),
            "Each": grpc.stream_stream_rpc_method_handler(self.echo.each, bytes, bytes),
            "Twice": grpc.unary_stream_rpc_method_handler(self.echo.twice, bytes, bytes),
        }
        interceptor.add_registered_method_handlers("test.Echo", kinds)
        self.decoders = Decoders(1)
        status = status_endpoint(Metrics(), Settings(), lambda: 0)
        rest = Rest(interceptor, self.open_calls, MAX_BYTES, lambda: "", self.decoders, status, {})
        self.application = Application(GrpcAdapter(interceptor, self.open_calls, MAX_BYTES), rest)

    async def call(self, path: str, *chunks: bytes, ends: bool = True, **options: Any) -> "Answer":  # noqa: ANN401 - of `exchange`
        """Sends a body in chunks and waits for the response; without an end, the client stays connected."""
        events: asyncio.Queue[Event] = asyncio.Queue()
        for chunk in chunks:
            events.put_nowait({"type": "http.request", "body": chunk, "more_body": True})
        if ends:
            events.put_nowait({"type": "http.request", "body": b"", "more_body": False})
        return await self.exchange(path, events, **options)

    async def exchange(
        self,
        path: str,
        events: asyncio.Queue[Event],
        headers: Headers = (),
        method: str = "POST",
        content_type: bytes = b"application/grpc",
        http_version: str = "2",
        trailers: bool = True,
    ) -> "Answer":
        answer = Answer()

        def send(event: Event) -> asyncio.Future[None]:
            answer.events.append(event)
            sent = asyncio.get_running_loop().create_future()
            sent.set_result(None)
            return sent

        scope = {
            "type": "http",
            "method": method,
            "path": path,
            "query_string": b"",
            "http_version": http_version,
            "headers": [(b"content-type", content_type), *headers],
            "client": ("127.0.0.1", 5),
            "extensions": {"http.response.trailers": {}} if trailers else {},
        }
        await self.application(scope, events.get, send)
        return answer


class Answer:
    """A response as a client receives it."""

    def __init__(self) -> None:
        self.events: list[Event] = []

    @property
    def status(self) -> int:
        """HTTP status."""
        status: int = self.events[0]["status"]
        return status

    @property
    def body(self) -> bytes:
        return b"".join(event["body"] for event in self.events if event["type"] == "http.response.body")

    @property
    def fields(self) -> dict[bytes, bytes]:
        """Headers and trailers."""
        return dict(header for event in self.events for header in event.get("headers", ()))

    @property
    def code(self) -> grpc.StatusCode:
        (code,) = [code for code in grpc.StatusCode if code.value[0] == int(self.fields[b"grpc-status"])]
        return code

    @property
    def message(self) -> str:
        return unquote(self.fields[b"grpc-message"].decode())


@asynccontextmanager
async def watched(caller: Caller) -> AsyncIterator[Caller]:
    """Polls the open calls as the server does; none may remain at the end."""
    watching = asyncio.create_task(caller.open_calls.watch())
    try:
        yield caller
    finally:
        watching.cancel()
        caller.decoders.shutdown()
    assert len(caller.open_calls) == 0
    assert caller.open_calls.held == 0


def run(test: Callable[[Caller], Coroutine[None, None, None]], **options: Any) -> None:  # noqa: ANN401 - of `Caller`
    async def whole() -> None:
        async with watched(Caller(**options)) as caller:
            await asyncio.wait_for(test(caller), PATIENCE)

    asyncio.run(whole())


@pytest.mark.parametrize("payload", [b"", b"hello", LARGE], ids=["empty", "small", "large"])
@pytest.mark.parametrize(("method", "answers"), [("Same", 1), ("Each", 1), ("Twice", 2)])
def test_a_call_of_each_kind_is_answered(method: str, answers: int, payload: bytes) -> None:
    async def test(caller: Caller) -> None:
        answer = await caller.call(f"/test.Echo/{method}", frame(payload))
        assert (answer.status, answer.code) == (200, grpc.StatusCode.OK)
        assert answer.body == frame(payload) * answers
        assert [event["type"] for event in answer.events][-1] == "http.response.trailers"

    run(test)


@settings(max_examples=50)
@given(messages=st.lists(st.binary(max_size=20), max_size=5), cuts=st.lists(st.integers(0, 100), max_size=6))
def test_a_stream_may_be_split_anywhere(messages: list[bytes], cuts: list[int]) -> None:
    async def test(caller: Caller) -> None:
        body = b"".join(map(frame, messages))
        places = sorted({0, len(body), *(cut % (len(body) + 1) for cut in cuts)})
        chunks = [body[start:end] for start, end in pairwise(places)]
        answer = await caller.call("/test.Echo/Each", *chunks)
        assert (answer.code, answer.body) == (grpc.StatusCode.OK, body)

    run(test)


@pytest.mark.parametrize("method", ["Same", "Each"])
def test_an_error_has_its_status_and_a_failure_reveals_nothing(method: str) -> None:
    async def test(caller: Caller) -> None:
        wrong = await caller.call(f"/test.Echo/{method}", frame(b"wrong"))
        assert wrong.code is grpc.StatusCode.INVALID_ARGUMENT
        assert wrong.message == "field: is 100 % wrong, ä"
        assert b"grpc-status-details-bin" in wrong.fields
        broken = await caller.call(f"/test.Echo/{method}", frame(b"broken"))
        assert broken.code is grpc.StatusCode.INTERNAL
        assert "secret" not in str(broken.events)

    run(test)


def test_an_error_in_a_stream_follows_the_earlier_responses() -> None:
    async def test(caller: Caller) -> None:
        answer = await caller.call("/test.Echo/Each", frame(b"one") + frame(b"wrong") + frame(b"two"))
        assert answer.body == frame(b"one")
        assert answer.code is grpc.StatusCode.INVALID_ARGUMENT
        assert answer.events[-1]["type"] == "http.response.trailers"

    run(test)


@pytest.mark.parametrize(
    ("chunk", "ends", "headers", "code"),
    [
        (b"", True, (), grpc.StatusCode.INVALID_ARGUMENT),
        (frame(b"hello")[:-1], True, (), grpc.StatusCode.INVALID_ARGUMENT),
        (frame(b"hello")[:3], True, (), grpc.StatusCode.INVALID_ARGUMENT),
        (frame(b"a") + frame(b"b"), True, (), grpc.StatusCode.INVALID_ARGUMENT),
        (b"\0" + (MAX_BYTES + 1).to_bytes(4, "big"), False, (), grpc.StatusCode.RESOURCE_EXHAUSTED),
        (b"\1" + frame(b"hello")[1:], True, (), grpc.StatusCode.UNIMPLEMENTED),
        (b"\1" + frame(b"hello")[1:], True, [(b"grpc-encoding", b"gzip")], grpc.StatusCode.INVALID_ARGUMENT),
        (
            b"\1" + frame(gzip.compress(bytes(MAX_BYTES + 1)))[1:],
            True,
            [(b"grpc-encoding", b"gzip")],
            grpc.StatusCode.RESOURCE_EXHAUSTED,
        ),
        (frame(b"hello"), True, [(b"grpc-timeout", b"soon")], grpc.StatusCode.INVALID_ARGUMENT),
        (frame(b"hello"), True, [(b"grpc-timeout", b"123456789S")], grpc.StatusCode.INVALID_ARGUMENT),
    ],
    ids=["nothing", "cut", "cut prefix", "two", "too long", "unnamed coding", "no gzip", "bomb", "unit", "digits"],
)
@pytest.mark.parametrize("method", ["Same", "Twice"])
def test_an_invalid_call_is_rejected(
    method: str, chunk: bytes, ends: bool, headers: Headers, code: grpc.StatusCode
) -> None:
    async def test(caller: Caller) -> None:
        answer = await caller.call(f"/test.Echo/{method}", chunk, ends=ends, headers=headers)
        assert (answer.status, answer.code) == (200, code)
        assert answer.body == b""

    run(test)


def test_a_compressed_message_is_read() -> None:
    async def test(caller: Caller) -> None:
        chunk = b"\1" + frame(gzip.compress(b"hello"))[1:]
        answer = await caller.call("/test.Echo/Same", chunk, headers=[(b"grpc-encoding", b"gzip")])
        assert answer.body == frame(b"hello")

    run(test)


@pytest.mark.parametrize(
    ("method", "body"),
    [("Wait", frame(b"x")), ("Same", b""), ("Each", frame(b"x"))],
    ids=["the handler", "the message", "the stream"],
)
def test_a_call_ends_at_its_deadline_in_any_state(method: str, body: bytes) -> None:
    async def test(caller: Caller) -> None:
        answer = await caller.call(
            f"/test.Echo/{method}", body, ends=method == "Wait", headers=[(b"grpc-timeout", b"60m")]
        )
        assert answer.code is grpc.StatusCode.DEADLINE_EXCEEDED
        assert answer.message == "the deadline passed before the response was ready"
        assert caller.echo.cancelled.is_set() == (method == "Wait")

    run(test)


@pytest.mark.parametrize("whole", [True, False])
def test_a_disconnected_client_ends_its_call_without_a_response(whole: bool) -> None:
    async def test(caller: Caller) -> None:
        events: asyncio.Queue[Event] = asyncio.Queue()
        events.put_nowait({"type": "http.request", "body": frame(b"x") if whole else b"", "more_body": not whole})
        calling = asyncio.ensure_future(caller.exchange("/test.Echo/Wait", events))
        if whole:
            await caller.echo.waiting.wait()
        events.put_nowait({"type": "http.disconnect"})
        answer = await calling
        assert answer.events == []
        assert caller.echo.cancelled.is_set() == whole

    run(test)


def test_calls_beyond_the_limit_of_a_client_are_rejected() -> None:
    async def test(caller: Caller) -> None:
        events: asyncio.Queue[Event] = asyncio.Queue()
        events.put_nowait({"type": "http.request", "body": frame(b"x"), "more_body": False})
        calling = asyncio.ensure_future(caller.exchange("/test.Echo/Wait", events))
        await caller.echo.waiting.wait()
        assert (await caller.call("/test.Echo/Same", frame(b"x"))).code is grpc.StatusCode.RESOURCE_EXHAUSTED
        events.put_nowait({"type": "http.disconnect"})
        await calling
        assert (await caller.call("/test.Echo/Same", frame(b"x"))).code is grpc.StatusCode.OK

    run(test, max_client_calls=1)


@pytest.mark.parametrize("method", ["Same", "Each"])
def test_a_stopping_server_rejects_new_calls(method: str) -> None:
    async def test(caller: Caller) -> None:
        answer = await caller.call(f"/test.Echo/{method}", frame(b"x"))
        assert answer.code is grpc.StatusCode.UNAVAILABLE

    run(test, stopping=True)


def test_an_unknown_method_is_unimplemented() -> None:
    async def test(caller: Caller) -> None:
        answer = await caller.call("/test.Echo/Nothing", frame(b"x"))
        assert (answer.status, answer.code) == (200, grpc.StatusCode.UNIMPLEMENTED)

    run(test)


@pytest.mark.parametrize(
    ("options", "status"),
    [
        ({"method": "GET"}, 405),
        ({"content_type": b"text/plain"}, 415),
        ({"content_type": b"application/grpc+json"}, 415),
        ({"http_version": "1.1"}, 505),
        ({"http_version": "1.1", "headers": [(b"x-medserve-content-type", b"application/grpc-web")]}, 200),
    ],
)
def test_http_requests_other_than_grpc_get_an_http_status(options: dict[str, Any], status: int) -> None:
    async def test(caller: Caller) -> None:
        assert (await caller.call("/test.Echo/Same", frame(b"x"), **options)).status == status

    run(test)


@pytest.mark.parametrize("trailers", [True, False])
def test_rest_answers_other_paths_and_grpc_without_trailers(trailers: bool) -> None:
    async def test(caller: Caller) -> None:
        page = await caller.call("/openapi.json", method="GET", content_type=b"", trailers=trailers)
        assert page.status == 200
        assert page.body.startswith(b"{")
        grpc_call = await caller.call("/test.Echo/Same", frame(b"x"), trailers=trailers)
        assert (grpc_call.body == frame(b"x")) == trailers

    run(test)
