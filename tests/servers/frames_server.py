"""HTTP/2 servers that send exactly the frames specified by a test, on a real port."""

import asyncio
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress

from medserve_client.loadtest.protocol import wire

Answer = Callable[[int], bytes]
"""Returns the frames that a server sends once the request on a stream is complete."""

PREFACE_BYTES = 24
OK = b"\x88"  # :status 200
TRAILERS = b"\x00\x0bgrpc-status\x010"


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    return wire.FRAME.pack(len(payload) >> 8, len(payload) & 255, kind, flags, stream) + payload


def answer(stream: int, message: bytes = b"hi") -> bytes:
    """Returns a minimal complete gRPC response."""
    return (
        frame(wire.HEADERS, wire.END_HEADERS, stream, OK)
        + frame(wire.DATA, 0, stream, b"\0" + len(message).to_bytes(4) + message)
        + frame(wire.HEADERS, wire.END_HEADERS | wire.END_STREAM, stream, TRAILERS)
    )


def goaway(last: int) -> bytes:
    return frame(wire.GOAWAY, 0, 0, struct.pack(">II", last, 0))


@asynccontextmanager
async def frames_server(
    answer_to: Answer, settings: bytes = b"", blocks: list[bytes] | None = None
) -> AsyncIterator[str]:
    """Serves until the block ends and yields the target; the request headers are appended to `blocks`."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # The test may end at any time, and the client before it.
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            await reader.readexactly(PREFACE_BYTES)
            writer.write(frame(wire.SETTINGS, 0, 0, settings))
            while True:
                high, low, kind, flags, stream = wire.FRAME.unpack(await reader.readexactly(wire.FRAME.size))
                payload = await reader.readexactly(high << 8 | low)
                if kind == wire.HEADERS and blocks is not None:
                    blocks.append(payload)
                if kind == wire.DATA and flags & wire.END_STREAM:
                    writer.write(answer_to(stream))
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        host, port = server.sockets[0].getsockname()
        yield f"{host}:{port}"
