"""Length-prefixed gRPC messages over HTTP/2.

https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md
"""

import zlib
from collections.abc import AsyncIterator, Mapping

from medserve_server.calls.open_calls import OpenCall
from medserve_server.errors import InvalidInput, MessageTooLarge, Unsupported
from medserve_server.http.inflate import GZIP, inflated

PREFIX_BYTES = 5


def frame(payload: bytes) -> bytes:
    """Returns the uncompressed message with its 5-byte prefix."""
    return b"\0" + len(payload).to_bytes(4, "big") + payload


class MessageReader:
    """Splits a request body into messages.

    A message longer than `max_bytes` is refused as soon as its prefix has arrived.

    Args:
        call: provides the body.
        headers: headers of the request.
        max_bytes: maximum size of a message, both compressed and decompressed.
    """

    __slots__ = ("_call", "_data", "_headers", "_max_bytes", "_position")

    def __init__(self, call: OpenCall, headers: Mapping[bytes, bytes], max_bytes: int) -> None:
        self._headers = headers
        self._max_bytes = max_bytes
        self._call = call
        self._data: bytes | bytearray = b""
        self._position = 0

    async def only(self) -> bytes:
        """Returns the single message of a unary call, whose arrival time is limited (`OpenCall.limit_body`).

        Raises:
            InvalidInput: the body is not exactly one message.
            MessageTooLarge: the message is too long.
            Overloaded: incomplete messages already occupy too much memory.
            Unsupported: the compression is not supported.
        """
        self._call.limit_body()
        chunk = await self._call.chunk()
        length = len(chunk) - PREFIX_BYTES
        if self._call.read and chunk[:1] == b"\0" and int.from_bytes(chunk[1:PREFIX_BYTES], "big") == length:
            if length > self._max_bytes:
                raise self._too_long(length)
            return chunk[PREFIX_BYTES:]  # the common case: the whole body in one event
        self._append(chunk)
        message = await self._next()
        if message is None:
            raise InvalidInput.of("", "the call ended without a message; this method expects one")
        if not self._call.read:
            self._call.hold(len(message))
        if self._position != len(self._data) or (not self._call.read and await self._read_chunk()):
            raise InvalidInput.of("", "more than one message was sent; this method expects one")
        self._call.hold(0)
        return message

    async def __aiter__(self) -> AsyncIterator[bytes]:
        """Yields the messages of a stream as they arrive.

        Raises:
            InvalidInput: the body ends within a message.
            MessageTooLarge: a message is too long.
            Overloaded: incomplete messages already occupy too much memory.
            Unsupported: the compression is not supported.
        """
        while (message := await self._next()) is not None:
            yield message

    async def _next(self) -> bytes | None:
        """Returns the next message, or None at the end of the body."""
        if not await self._fill(PREFIX_BYTES):
            return None
        prefix = self._data[self._position : self._position + PREFIX_BYTES]
        length = int.from_bytes(prefix[1:], "big")
        if length > self._max_bytes:
            raise self._too_long(length)
        if not await self._fill(PREFIX_BYTES + length):
            raise InvalidInput.of("", "the body ends within a message")
        start = self._position + PREFIX_BYTES
        message = bytes(memoryview(self._data)[start : start + length])
        self._position = start + length
        if self._position == len(self._data):
            self._data, self._position = b"", 0  # frees the buffer: the next message may arrive much later
        return self._decompressed(message) if prefix[0] else message

    async def _fill(self, count: int) -> bool:
        """Reads until `count` bytes are buffered; returns False if the body ends before the next message."""
        while len(self._data) - self._position < count:
            self._call.hold(len(self._data) - self._position)
            if self._call.read or not await self._read_chunk():
                if len(self._data) == self._position:
                    return False
                raise InvalidInput.of("", "the body ends within a message")
        if self._call.held:
            self._call.hold(0)
        return True

    async def _read_chunk(self) -> bool:
        """Reads the next non-empty chunk; returns False at the end of the body."""
        while not self._call.read:
            if chunk := await self._call.chunk():
                self._append(chunk)
                return True
        return False

    def _too_long(self, length: int) -> MessageTooLarge:
        return MessageTooLarge(f"the message has {length} bytes, at most {self._max_bytes} are accepted")

    def _append(self, chunk: bytes) -> None:
        if self._position == len(self._data):
            self._data, self._position = chunk, 0
            return
        if not isinstance(self._data, bytearray):
            self._data = bytearray(memoryview(self._data)[self._position :])
            self._position = 0
        elif self._position:
            del self._data[: self._position]
            self._position = 0
        self._data += chunk

    def _decompressed(self, message: bytes) -> bytes:
        encoding = self._headers.get(b"grpc-encoding", b"").decode("latin-1")
        if encoding != "gzip":
            text = f"a message is compressed, and grpc-encoding is {encoding[:32]!r}; gzip and identity are accepted"
            raise Unsupported(text)
        try:
            data, whole = inflated(message, GZIP, self._max_bytes)
        except zlib.error:
            raise InvalidInput.of(
                "", f"the {len(message)} bytes of a compressed message are not a gzip stream"
            ) from None
        if len(data) > self._max_bytes:
            raise MessageTooLarge(f"the decompressed message has more than the {self._max_bytes} bytes accepted")
        if not whole:
            raise InvalidInput.of(
                "", f"the {len(message)} bytes of a compressed message are not one complete gzip stream"
            )
        return data
