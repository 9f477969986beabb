"""Length-prefixed messages of gRPC over HTTP/2.

https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md
"""

import zlib
from collections.abc import AsyncIterator, Mapping

from medserve_server.calls.open_calls import OpenCall
from medserve_server.errors import InvalidInput, MessageTooLarge, Unsupported
from medserve_server.http.inflate import GZIP, inflated

PREFIX_BYTES = 5


def frame(payload: bytes) -> bytes:
    """Returns the message with its prefix, uncompressed."""
    return b"\0" + len(payload).to_bytes(4, "big") + payload


class MessageReader:
    """Cuts the body of a request into messages.

    A message is refused by its prefix, before the rest of it is read, where it is longer than `max_bytes`.

    Args:
        call: Gives the body.
        headers: Of the request.
        max_bytes: Length of a message, also when it is decompressed.
    """

    __slots__ = ("_at", "_call", "_data", "_headers", "_max_bytes")

    def __init__(self, call: OpenCall, headers: Mapping[bytes, bytes], max_bytes: int) -> None:
        self._headers = headers
        self._max_bytes = max_bytes
        self._call = call
        self._data: bytes | bytearray = b""
        self._at = 0

    async def only(self) -> bytes:
        """Returns the one message of a unary call, which has to arrive in time (`OpenCall.limit_body`).

        Raises:
            InvalidInput: The body is not exactly one message.
            MessageTooLarge: It is too long.
            Overloaded: Messages that are not whole hold too much already.
            Unsupported: Its compression is not known here.
        """
        self._call.limit_body()
        chunk = await self._call.chunk()
        length = len(chunk) - PREFIX_BYTES
        if self._call.read and chunk[:1] == b"\0" and int.from_bytes(chunk[1:PREFIX_BYTES], "big") == length:
            if length > self._max_bytes:
                raise self._too_long(length)
            return chunk[PREFIX_BYTES:]  # as nearly always: all of it in one event
        self._append(chunk)
        message = await self._next()
        if message is None:
            raise InvalidInput.of("", "the call ended without a message; this method takes one")
        if not self._call.read:
            self._call.hold(len(message))
        if self._at != len(self._data) or (not self._call.read and await self._more()):
            raise InvalidInput.of("", "more than one message was sent; this method takes one")
        self._call.hold(0)
        return message

    async def __aiter__(self) -> AsyncIterator[bytes]:
        """Yields the messages of a stream as they come.

        Raises:
            InvalidInput: The body ends within a message.
            MessageTooLarge: A message is too long.
            Overloaded: Messages that are not whole hold too much already.
            Unsupported: Its compression is not known here.
        """
        while (message := await self._next()) is not None:
            yield message

    async def _next(self) -> bytes | None:
        """The next message; None at the end of the body."""
        if not await self._has(PREFIX_BYTES):
            return None
        prefix = self._data[self._at : self._at + PREFIX_BYTES]
        length = int.from_bytes(prefix[1:], "big")
        if length > self._max_bytes:
            raise self._too_long(length)
        if not await self._has(PREFIX_BYTES + length):
            raise InvalidInput.of("", "the body ends within a message")
        start = self._at + PREFIX_BYTES
        message = bytes(memoryview(self._data)[start : start + length])
        self._at = start + length
        if self._at == len(self._data):
            self._data, self._at = b"", 0  # a stream may wait long for the next one
        return self._decompressed(message) if prefix[0] else message

    async def _has(self, count: int) -> bool:
        """Reads until that many bytes are there; False where the body ends before."""
        while len(self._data) - self._at < count:
            self._call.hold(len(self._data) - self._at)
            if self._call.read or not await self._more():
                if len(self._data) == self._at:
                    return False
                raise InvalidInput.of("", "the body ends within a message")
        if self._call.held:
            self._call.hold(0)
        return True

    async def _more(self) -> bool:
        """Reads a chunk that is not empty; False at the end of the body."""
        while not self._call.read:
            if chunk := await self._call.chunk():
                self._append(chunk)
                return True
        return False

    def _too_long(self, length: int) -> MessageTooLarge:
        return MessageTooLarge(f"the message has {length} bytes, at most {self._max_bytes} are accepted")

    def _append(self, chunk: bytes) -> None:
        if self._at == len(self._data):
            self._data, self._at = chunk, 0
            return
        if not isinstance(self._data, bytearray):
            self._data = bytearray(memoryview(self._data)[self._at :])
            self._at = 0
        elif self._at:
            del self._data[: self._at]
            self._at = 0
        self._data += chunk

    def _decompressed(self, message: bytes) -> bytes:
        encoding = self._headers.get(b"grpc-encoding", b"").decode("latin-1")
        if encoding != "gzip":
            text = f"a message is compressed, and grpc-encoding is {encoding[:32]!r}; gzip and identity are accepted"
            raise Unsupported(text)
        try:
            data, whole = inflated(message, GZIP, self._max_bytes)
        except zlib.error:
            raise InvalidInput.of("", f"{len(message)} bytes that are no gzip stream") from None
        if len(data) > self._max_bytes:
            raise MessageTooLarge(f"the decompressed message has more than the {self._max_bytes} bytes accepted")
        if not whole:
            raise InvalidInput.of("", f"{len(message)} bytes that are not one whole gzip stream")
        return data
