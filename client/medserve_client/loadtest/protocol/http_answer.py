"""Parses the responses of an HTTP/1.1 server (RFC 9112) within size limits and skips their bodies."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

from medserve_client.channel import DEFAULT_MAX_MESSAGE_BYTES

_LARGEST_HEAD = 1 << 16
_LONGEST_LINE = 1 << 10
_SWITCHING = 101
_WITHOUT_BODY = (204, 304)


class AnswerError(Exception):
    """The server's response is malformed or too large."""


@dataclass(frozen=True, slots=True)
class Head:
    """Status line and framing headers of a response.

    Attributes:
        status: HTTP status.
        length: length of the body; None if it is chunked or ends with the connection.
        chunked: whether the body is chunked.
        keeps: whether the connection is kept open after the response.
    """

    status: int
    length: int | None
    chunked: bool
    keeps: bool


@lru_cache(maxsize=256)
def read_head(block: bytes) -> Head:
    """Parses a status line and headers, up to the empty line. Results are cached.

    Raises:
        AnswerError: the block is not HTTP/1, or the end of the body is ambiguous.
    """
    first, *lines = block.decode("latin-1").split("\r\n")
    version, _, rest = first.partition(" ")
    status = rest[:3]
    if version not in ("HTTP/1.1", "HTTP/1.0") or not (status.isascii() and status.isdigit() and len(status) == 3):
        raise AnswerError("the server does not speak HTTP/1.1")
    headers: dict[str, str] = {}
    for line in lines:
        name, _, value = line.partition(":")
        name, value = name.lower(), value.strip(" \t").lower()
        if headers.setdefault(name, value) != value and name in ("content-length", "transfer-encoding"):
            raise AnswerError(f"a response has conflicting {name} headers")
    coding, length = headers.get("transfer-encoding"), headers.get("content-length")
    if coding not in (None, "chunked") or (coding and length):
        raise AnswerError("a response has a body of ambiguous length")
    options = headers.get("connection", "" if version == "HTTP/1.1" else "close")
    size = 0 if int(status) in _WITHOUT_BODY else _size(length)
    return Head(int(status), size, coding is not None, "close" not in options and (coding or size) is not None)


def _size(length: str | None) -> int | None:
    if length is None:
        return None
    if not (length.isascii() and length.isdigit()) or len(length) > 10 or int(length) > DEFAULT_MAX_MESSAGE_BYTES:
        raise AnswerError(f"a response is too large; expected at most {DEFAULT_MAX_MESSAGE_BYTES} bytes")
    return int(length)


class AnswerReader:
    """Incremental parser for consecutive responses."""

    def __init__(self) -> None:
        self._data = bytearray()  # received and not parsed yet
        self._read: Callable[[], bool] = self._read_head
        self._head: Head | None = None
        self._ended = False
        self._left = 0  # remaining bytes of the body, or of its chunk and the line end after it
        self._size = 0
        self.kept: bytearray | None = None
        """Buffer that bodies are appended to, if any."""

    def feed(self, data: bytes) -> Head | None:
        """Processes bytes from the server and returns the head of the response that they complete, if any.

        Raises:
            AnswerError: the response is malformed, too large or longer than declared.
        """
        self._data += data
        self._ended = False
        while not self._ended and self._data and self._read():
            pass
        if not self._ended:
            return None
        if self._data:
            raise AnswerError("a response is longer than declared")
        self._read = self._read_head
        return self._head

    def end(self) -> Head | None:
        """Returns the head of the response that the end of the connection completes, if any."""
        return self._head if self._read == self._read_rest else None

    def _read_head(self) -> bool:
        if (end := self._data.find(b"\r\n\r\n")) < 0:
            if len(self._data) > _LARGEST_HEAD:
                raise AnswerError("the headers of a response are too large")
            return False
        head = read_head(bytes(self._data[:end]))
        del self._data[: end + 4]
        if 100 <= head.status < 200 and head.status != _SWITCHING:  # an interim response
            return True
        self._head, self._left, self._size = head, head.length or 0, 0
        if head.chunked:
            self._read = self._read_chunk_size
        elif head.length is None:
            self._read = self._read_rest
        else:
            self._read, self._ended = self._read_body, not head.length
        return True

    def _read_body(self) -> bool:
        self._skip(self._left)
        self._ended = not self._left
        return True

    def _read_rest(self) -> bool:
        self._left = len(self._data)
        self._skip(self._left)
        return True

    def _read_chunk_size(self) -> bool:
        if (line := self._line()) is None:
            return False
        size = line.partition(b";")[0].strip(b" \t")
        if not size or len(size) > 8 or size.strip(b"0123456789abcdefABCDEF"):
            raise AnswerError("a chunk of a response has no valid size")
        self._left = int(size, 16) + 2
        self._check_size(self._size + self._left - 2)
        self._read = self._read_chunk if self._left > 2 else self._read_trailer
        return True

    def _read_chunk(self) -> bool:
        self._skip(self._left - 2)
        if self._left > 2 or len(self._data) < 2:
            return False
        if self._data[:2] != b"\r\n":
            raise AnswerError("a chunk of a response is longer than declared")
        del self._data[:2]
        self._read = self._read_chunk_size
        return True

    def _read_trailer(self) -> bool:
        line = self._line()
        self._ended = line == b""
        return line is not None

    def _line(self) -> bytes | None:
        end = self._data.find(b"\r\n")
        if end > _LONGEST_LINE or (end < 0 and len(self._data) > _LONGEST_LINE):
            raise AnswerError("a line between the chunks of a response is too long")
        if end < 0:
            return None
        line = bytes(self._data[:end])
        del self._data[: end + 2]
        return line

    def _skip(self, most: int) -> None:
        size = min(most, len(self._data))
        self._size += size
        self._check_size(self._size)
        if self.kept is not None:
            self.kept += self._data[:size]
        del self._data[:size]
        self._left -= size

    def _check_size(self, size: int) -> None:
        if size > DEFAULT_MAX_MESSAGE_BYTES:
            raise AnswerError(f"a response is too large; expected at most {DEFAULT_MAX_MESSAGE_BYTES} bytes")
