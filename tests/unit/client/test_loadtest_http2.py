"""The load generator against HTTP/2 servers that do all that they may, and much that they must not."""

import asyncio
import struct
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import pytest

from frames_server import OK, TRAILERS, answer, frame, frames_server, goaway
from loadtest_outcomes import fine
from medserve_client.loadtest import LoadError, LoadPlan, LoadResult, run
from medserve_client.loadtest.protocol import wire
from small_server import Serve
from waiting import PATIENCE

pytestmark = pytest.mark.process  # a load is made by processes of their own

PING = bytes(8)
LAST = wire.END_HEADERS | wire.END_STREAM


async def load(target: str, **options: Any) -> LoadResult:  # noqa: ANN401 - of a plan
    settings = {"concurrency": 2, "duration": 0.3, "warmup": 0.0, "timeout": PATIENCE} | options
    return await asyncio.to_thread(run, LoadPlan(target, "/t.T/Unary", [b"x"], **settings))


def padded(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return frame(kind, flags | wire.PADDED, stream, b"\x07" + payload + bytes(7))


def with_priority(stream: int) -> bytes:
    flags = LAST | wire.PADDED | wire.PRIORITY
    return frame(wire.HEADERS, flags, stream, b"\x02" + bytes(5) + TRAILERS + bytes(2))


def in_parts(stream: int) -> bytes:
    """Trailers over three frames; the flag of the last that is none for it must not matter."""
    return (
        frame(wire.HEADERS, wire.END_STREAM, stream, TRAILERS[:4])
        + frame(wire.CONTINUATION, wire.END_STREAM, stream, TRAILERS[4:9])
        + frame(wire.CONTINUATION, wire.END_HEADERS, stream, TRAILERS[9:])
    )


def beginning(stream: int) -> bytes:
    return frame(wire.HEADERS, wire.END_HEADERS, stream, OK) + frame(wire.DATA, 0, stream, b"\0\0\0\0\2hi")


ALLOWED = {
    "padding": lambda stream: (
        padded(wire.HEADERS, wire.END_HEADERS, stream, OK)
        + padded(wire.DATA, wire.PRIORITY, stream, b"\0\0\0\0\2hi")
        + padded(wire.HEADERS, LAST, stream, TRAILERS)
    ),
    "priority": lambda stream: beginning(stream) + with_priority(stream),
    "continuation": lambda stream: beginning(stream) + in_parts(stream),
    "interim answer": lambda stream: (
        frame(wire.HEADERS, wire.END_HEADERS, stream, b"\x08\x03103") + beginning(stream) + with_priority(stream)
    ),
    "size update and entries that a table of size 0 drops": lambda stream: (
        beginning(stream) + frame(wire.HEADERS, LAST, stream, b"\x20\x40" + TRAILERS[1:])
    ),
    "frames of types to come": lambda stream: frame(0xBE, 0xFF, stream, b"?") + answer(stream),
    "pings and updates": lambda stream: (
        frame(wire.PING, 0, 0, PING) + frame(wire.WINDOW_UPDATE, 0, 0, b"\0\0\1\0") + answer(stream)
    ),
}


@pytest.mark.parametrize("frames", ALLOWED.values(), ids=ALLOWED)
async def test_valid_http2_frames_are_accepted(frames: Any) -> None:  # noqa: ANN401
    async with frames_server(frames) as target:
        result = await load(target)
    assert not result.errors
    assert result.sample == b"hi"
    assert result.sent > 2


HUFFMAN_503 = b"\x48\x83\x6c\x0c\xff"
HUFFMAN_302 = b"\x48\x82\x64\x02"  # RFC 7541, C.6.1


@pytest.mark.parametrize(
    ("block", "status"),
    [
        (b"\x8c", "INTERNAL"),  # 400
        (b"\x08\x03401", "UNAUTHENTICATED"),
        (b"\x08\x03403", "PERMISSION_DENIED"),
        (b"\x8d", "UNIMPLEMENTED"),  # 404
        (b"\x08\x03429", "UNAVAILABLE"),
        (b"\x08\x03502", "UNAVAILABLE"),
        (HUFFMAN_503, "UNAVAILABLE"),
        (b"\x08\x03504", "UNAVAILABLE"),
        (HUFFMAN_302, "UNKNOWN"),
        (b"\x8e", "UNKNOWN"),  # 500
        (OK, "UNKNOWN"),
        (OK + b"\x00\x0bgrpc-status\x018", "RESOURCE_EXHAUSTED"),
        (b"\x8d\x00\x0bgrpc-status\x018", "RESOURCE_EXHAUSTED"),
        (OK + b"\x00\x0bgrpc-status\x0299", "UNKNOWN"),
    ],
)
async def test_trailers_only_and_http_error_responses_count_by_their_status(block: bytes, status: str) -> None:
    def page(stream: int) -> bytes:
        return frame(wire.HEADERS, wire.END_HEADERS, stream, block) + frame(wire.DATA, wire.END_STREAM, stream, b"<p>")

    for frames in (lambda stream: frame(wire.HEADERS, LAST, stream, block), page):
        async with frames_server(frames) as target:
            result = await load(target)
        assert set(result.errors) == {status}
        assert len(result.latencies) == 0


async def test_calls_not_accepted_before_goaway_move_to_the_next_connection() -> None:
    def leave(stream: int) -> bytes:
        """The third call is the last that is answered, whatever comes behind it."""
        return answer(stream) if stream < 5 else (goaway(5) + answer(stream) if stream == 5 else b"")

    async with frames_server(leave) as target:
        result = await load(target, concurrency=4, timeout=PATIENCE)
    assert not result.errors
    assert result.sent > 8


async def test_a_server_that_drains_twice_loses_no_call() -> None:
    def leave(stream: int) -> bytes:
        """As Envoy and grpcio do: that they will go, and then which call is the last; more are not answered."""
        if stream == 5:
            return goaway(2**31 - 1) + answer(stream) + goaway(stream)
        return answer(stream) if stream < 5 else b""

    async with frames_server(leave) as target:
        result = await load(target, concurrency=1)
    assert not result.errors
    assert result.sent > 5


def endless(stream: int) -> bytes:
    part = frame(wire.CONTINUATION, 0, stream, b"\x00\x01a" + b"\x7f\x81\x7e" + bytes(16_370))
    return frame(wire.HEADERS, 0, stream, b"") + part * 5


FORBIDDEN = {
    "padding beyond the frame": lambda stream: frame(wire.DATA, wire.PADDED, stream, b"\x09abc"),
    "padding of nothing": lambda stream: frame(wire.HEADERS, LAST | wire.PADDED, stream),
    "a table that is not there": lambda stream: frame(wire.HEADERS, LAST, stream, b"\xbe"),
    "index 0": lambda stream: frame(wire.HEADERS, LAST, stream, b"\x80"),
    "an endless number": lambda stream: frame(wire.HEADERS, LAST, stream, b"\x3f" + b"\x80" * 99 + b"\x01" + TRAILERS),
    "a text that is cut off": lambda stream: frame(wire.HEADERS, LAST, stream, TRAILERS[:-1]),
    "a code that is cut off": lambda stream: frame(wire.HEADERS, LAST, stream, b"\x48\x83\x6c\x0c\x00"),
    "the end within a text": lambda stream: frame(wire.HEADERS, LAST, stream, b"\x48\x84\xff\xff\xff\xff"),
    "headers without an end": endless,
    "headers that are interrupted": lambda stream: (
        frame(wire.HEADERS, 0, stream, OK) + frame(wire.PING, 0, 0, bytes(8))
    ),
    "a continuation of nothing": lambda stream: frame(wire.CONTINUATION, wire.END_HEADERS, stream, TRAILERS),
    "a push": lambda stream: frame(wire.PUSH_PROMISE, wire.END_HEADERS, stream, b"\0\0\0\2" + OK),
    "a frame that is too long": lambda stream: frame(wire.DATA, 0, stream, bytes(16_385)),
    "settings that are cut off": lambda _: frame(wire.SETTINGS, 0, 0, b"\0\1\0"),
    "a frame size that is none": lambda _: frame(wire.SETTINGS, 0, 0, struct.pack(">HI", wire.MAX_FRAME, 5)),
    "a window that is none": lambda _: frame(wire.SETTINGS, 0, 0, struct.pack(">HI", wire.INITIAL_WINDOW, 2**31)),
}


@pytest.mark.parametrize("frames", FORBIDDEN.values(), ids=FORBIDDEN)
async def test_invalid_http2_frames_fail_only_their_own_calls(frames: Any) -> None:  # noqa: ANN401
    async with frames_server(frames) as target:
        result = await load(target, concurrency=1)
    assert set(result.errors) == {"INTERNAL"}


async def test_invalid_settings_of_a_server_are_reported() -> None:
    async with frames_server(answer, settings=struct.pack(">HI", wire.MAX_FRAME, 5)) as target:
        with pytest.raises(LoadError, match="violates HTTP/2: the maximum frame"):
            await load(target)


@pytest.mark.parametrize("size", [0, 100])
async def test_a_small_header_table_of_the_server_is_respected(size: int) -> None:
    """Requests don't refer to what such a table does not hold, and the first says that they use none."""
    blocks: list[bytes] = []
    async with frames_server(answer, struct.pack(">HI", wire.TABLE_SIZE, size), blocks) as target:
        assert not (await load(target)).errors
    assert blocks[0].startswith(b"\x20")
    assert all(b"/t.T/Unary" in block for block in blocks)


@pytest.mark.parametrize("length", [100, 200, 4000, 6000])
def test_a_token_of_any_length_arrives_with_every_call(serve: Serve, length: int) -> None:
    token = "t" * length
    arrived: set[str] = set()

    def check(request: bytes, context: grpc.ServicerContext) -> bytes:
        arrived.add(str(dict(context.invocation_metadata()).get("authorization")))
        return request

    def add(server: grpc.Server) -> None:
        handlers: dict[str, grpc.RpcMethodHandler[bytes, bytes]] = {"Unary": grpc.unary_unary_rpc_method_handler(check)}
        server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler("t.T", handlers)])

    plan = LoadPlan(serve(add), "/t.T/Unary", [b"x"], concurrency=2, duration=0.3, warmup=0, token=token)
    result = run(plan)
    assert not result.errors
    assert arrived == {f"Bearer {token}"}


def test_a_stream_continues_on_the_next_connection_when_grpcio_stops() -> None:
    """Its messages are answered, the stream ends, and the server need not wait for its grace to be over."""

    def stream(requests: Any, _context: grpc.ServicerContext) -> Any:  # noqa: ANN401
        yield from requests

    def start(port: int) -> tuple[grpc.Server, int]:
        server = grpc.server(ThreadPoolExecutor(2), options=[("grpc.so_reuseport", 0)])
        handler: grpc.RpcMethodHandler[bytes, bytes] = grpc.stream_stream_rpc_method_handler(stream)
        server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler("t.T", {"Unary": handler})])
        bound = server.add_insecure_port(f"127.0.0.1:{port}")
        server.start()
        return server, bound

    server, port = start(0)
    stopped: list[int] = []

    def on_progress(progress: Any) -> None:  # noqa: ANN401
        nonlocal server
        if progress.succeeded and not stopped:
            stopped.append(progress.succeeded)
            server.stop(grace=PATIENCE).wait()
            server, _ = start(port)

    plan = LoadPlan(f"127.0.0.1:{port}", "/t.T/Unary", [b"x"], concurrency=2, duration=3, warmup=0, outcome=fine)
    result = run(plan, on_progress)
    server.stop(grace=None).wait()
    assert not result.errors
    assert len(result.latencies) > stopped[0]
