"""The response of a gRPC call as ASGI events."""

import asyncio
import base64
from collections.abc import Callable
from urllib.parse import quote

import grpc

from medserve_server.http.asgi import Event, Send
from medserve_server.security.auth import Metadata
from medserve_server.supervise import start_awaited_task
from medserve_server.transport.grpc_frames import frame

SMALL_BYTES = 64 * 1024
"""Responses up to this size are passed to the ASGI server without waiting until they are sent.

pyvoy does not document this, but allows it (tests/e2e/operations/test_envoy_transport.py). A stream waits once it has
buffered more than this size."""

_HEADERS = [(b"content-type", b"application/grpc"), (b"grpc-accept-encoding", b"identity,gzip")]
_START: Event = {"type": "http.response.start", "status": 200, "headers": _HEADERS, "trailers": True}
_TRAILERS: Event = {"type": "http.response.trailers", "headers": [(b"grpc-status", b"0")], "more_trailers": False}
_PRINTABLE = "".join(map(chr, range(0x20, 0x7F))).replace("%", "")
"""Characters of grpc-message that percent-encoding leaves unchanged."""


class Response:
    """Sends the messages and the status of one call.

    Args:
        send: ASGI callable that sends an event.
        on_disconnect: called if the client has disconnected.
    """

    __slots__ = ("_bytes", "_drained", "_frames", "_on_disconnect", "_send", "_started", "_wake", "_writer")

    def __init__(self, send: Send, on_disconnect: Callable[[], None]) -> None:
        self._send = send
        self._on_disconnect = on_disconnect
        self._started = False
        self._writer: asyncio.Task[None] | None = None

    async def only(self, payload: bytes) -> None:
        """Sends the message of a unary call and status OK."""
        body: Event = {"type": "http.response.body", "body": frame(payload), "more_body": False}
        if len(payload) <= SMALL_BYTES:
            self._send(_START)
            self._send(body)
            self._send(_TRAILERS)
            return
        await self._send(_START)
        await self._send(body)
        await self._send(_TRAILERS)

    async def write(self, payload: bytes) -> None:
        """Sends a message of a stream; waits if more than `SMALL_BYTES` are buffered.

        Messages that are written while others are being sent are sent together.
        """
        if self._writer is None:
            self._frames: list[bytes] = []
            self._bytes = 0
            self._wake = asyncio.Event()
            self._drained = asyncio.Event()
            self._writer = start_awaited_task("response", self._write_all)
        self._frames.append(frame(payload))
        self._bytes += len(payload)
        self._wake.set()
        if self._bytes > SMALL_BYTES:
            self._drained.clear()
            await self._drained.wait()

    async def finish(self) -> None:
        """Sends the buffered messages of a stream and status OK."""
        await self._flush()
        await self._start()
        await self._send({"type": "http.response.body", "body": b"", "more_body": False})
        await self._send(_TRAILERS)

    async def fail(self, code: grpc.StatusCode, details: str, metadata: Metadata = ()) -> None:
        """Sends the buffered messages of a stream and an error status."""
        await self._flush()
        status: list[tuple[bytes, bytes]] = [
            (b"grpc-status", str(code.value[0]).encode()),
            (b"grpc-message", quote(details, safe=_PRINTABLE).encode()),
            *((key.encode(), _encoded(value)) for key, value in metadata),
        ]
        if self._started:
            await self._send({"type": "http.response.body", "body": b"", "more_body": False})
            await self._send({"type": "http.response.trailers", "headers": status, "more_trailers": False})
            return
        await self._send({"type": "http.response.start", "status": 200, "headers": _HEADERS + status})
        await self._send({"type": "http.response.body", "body": b"", "more_body": False})

    def close(self) -> None:
        """Discards buffered messages."""
        if self._writer is not None:
            self._writer.cancel()

    async def _flush(self) -> None:
        if self._writer is not None:
            writer, self._writer = self._writer, None
            self._wake.set()
            await writer

    async def _start(self) -> None:
        if not self._started:
            self._started = True
            await self._send(_START)

    async def _write_all(self) -> None:
        """Sends buffered frames until `_flush` detaches the writer."""
        try:
            while self._frames or self._writer is not None:
                await self._wake.wait()
                self._wake.clear()
                if self._frames:
                    frames, self._frames, self._bytes = self._frames, [], 0
                    await self._start()
                    await self._send({"type": "http.response.body", "body": b"".join(frames), "more_body": True})
                self._drained.set()
        except OSError:
            self._on_disconnect()


def _encoded(value: str | bytes) -> bytes:
    """Encodes a metadata value; bytes, the values of keys that end in -bin, as base64."""
    return base64.b64encode(value) if isinstance(value, bytes) else value.encode("ascii", "replace")
