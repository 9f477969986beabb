"""The subset of HPACK (RFC 7541) that a gRPC client needs: encodes request headers and decodes the call's status.

Responses are decoded without a dynamic table: the client's settings, which a server receives before its first response,
set its size to 0. The meaning of a header block is therefore independent of earlier ones, and decoding is cached.
"""

from collections.abc import Iterator
from functools import lru_cache
from itertools import pairwise

import grpc

# Length in bits of the Huffman code of each byte (RFC 7541, appendix B). The code is canonical, so the
# lengths determine it.
_LENGTHS = bytes.fromhex(
    "0d171c1c1c1c1c1c1c181e1c1c1e1c1c1c1c1c1c1c1c1e1c1c1c1c1c1c1c1c1c060a0a0c0d06080b0a0a080b0806060605050506"
    "06060606060607080f060c0a0d06070707070707070707070707070707070707070707070807080d130d0e060f05060506050606"
    "060507070606060506070605050607070707070f0b0e0d1c14161414161616171617171717171817181816171817171717151617"
    "1617171816151416161717151716161815161717151516151716171714161616171616171a1a1413161716191a1a1a1b1b1a1819"
    "13151a1b1b1a1b1815151a1a1c1b1b1b14181415161515171616191918181a171a1b1a1a1b1b1b1b1b1c1b1b1b1b1b1a"
)
# Indices of the static table (appendix A).
_AUTHORITY, _POST, _PATH, _HTTP, _CONTENT_TYPE = 1, 3, 4, 6, 31
_STATIC_STATUS = {8: "200", 9: "204", 10: "206", 11: "304", 12: "400", 13: "404", 14: "500"}
_STATIC_LENGTH = 61
# Type bits of an entry (section 6): indexed, literal with incremental indexing, dynamic table size update.
_INDEXED, _INSERTED, _SIZE_UPDATE = 0x80, 0x40, 0x20

_TABLE_SIZE, _ENTRY_OVERHEAD = 4096, 32  # of the server's table, by default (section 4.1)
_LARGEST_SHIFT = 28  # of an integer's last seven bits; larger integers do not occur here
_LONGEST_PADDING = 7  # bits after a Huffman-encoded string (section 5.2)

_STATUS_NAMES = {str(code.value[0]): code.name for code in grpc.StatusCode}
# For responses without a gRPC status (https://github.com/grpc/grpc/blob/master/doc/http-grpc-status-mapping.md).
_HTTP_STATUS_NAMES = {
    "400": "INTERNAL",
    "401": "UNAUTHENTICATED",
    "403": "PERMISSION_DENIED",
    "404": "UNIMPLEMENTED",
    "429": "UNAVAILABLE",
    "502": "UNAVAILABLE",
    "503": "UNAVAILABLE",
    "504": "UNAVAILABLE",
}


class HeaderError(Exception):
    """A header block is malformed."""


def request_headers(authority: str, path: str, timeout: float | None, token: str | None) -> tuple[bytes, bytes]:
    """Returns the header block of the first call on a connection, and that of every later call.

    The first block inserts its values into the server's dynamic table, and later blocks refer to them if they all fit.
    """
    headers = [(_AUTHORITY, ":authority", authority), (_PATH, ":path", path)]
    headers += [(_CONTENT_TYPE, "content-type", "application/grpc"), (0, "te", "trailers")]
    headers.append((0, "user-agent", "medserve-loadtest"))
    if timeout is not None:
        headers.append((0, "grpc-timeout", f"{max(1, round(timeout * 1000))}m"))
    if token is not None:
        headers.append((0, "authorization", f"Bearer {token}"))
    # Pseudo-headers come first; two of them are complete entries of the static table.
    always = bytes([_INDEXED | _POST, _INDEXED | _HTTP])
    first = b"".join(_insertion(index, name, value) for index, name, value in headers)
    if sum(len(name) + len(value) + _ENTRY_OVERHEAD for _, name, value in headers) > _TABLE_SIZE:
        return always + first, always + first
    later = bytes(_INDEXED | (_STATIC_LENGTH + len(headers) - place) for place in range(len(headers)))
    return always + first, always + later


def _insertion(index: int, name: str, value: str) -> bytes:
    begin = bytes([_INSERTED | index])
    return begin + (b"" if index else _text(name)) + _text(value)


def _text(value: str) -> bytes:
    data = value.encode("ascii")
    if len(data) < 127:  # the length fits into the 7-bit prefix
        return bytes([len(data)]) + data
    rest, more = len(data) - 127, bytearray([127])
    while rest >= 128:
        more.append(rest % 128 + 128)
        rest //= 128
    return bytes(more) + bytes([rest]) + data


@lru_cache(maxsize=1024)
def call_status(block: bytes) -> str | None:
    """Returns the name of the gRPC status in a header block, or that of its HTTP status; None if that is 200.

    For an interim response, the returned status is meaningless and the final response counts.

    Raises:
        HeaderError: the block is truncated, or refers to the dynamic table, which the client disables.
    """
    headers = dict(_entries(block))
    if (number := headers.get("grpc-status")) is not None:
        return _STATUS_NAMES.get(number, "UNKNOWN")
    status = headers.get(":status", "200")
    return None if status == "200" else _HTTP_STATUS_NAMES.get(status, "UNKNOWN")


def _entries(block: bytes) -> Iterator[tuple[str, str]]:
    place = 0
    try:
        while place < len(block):
            begin = block[place]
            if begin & _INDEXED:
                index, place = _number(block, place, 7)
                yield _name(index), _STATIC_STATUS.get(index, "")
            elif begin & _INSERTED or not begin & _SIZE_UPDATE:
                index, place = _number(block, place, 6 if begin & _INSERTED else 4)
                name, place = (_name(index), place) if index else _string(block, place)
                value, place = _string(block, place)
                yield name, value
            else:
                _, place = _number(block, place, 5)
    except IndexError:
        raise HeaderError("a header block is truncated") from None


def _name(index: int) -> str:
    """Returns the name of a static table entry; only :status matters here."""
    if index == 0:
        raise HeaderError("a header has index 0")
    if index > _STATIC_LENGTH:
        raise HeaderError("the server refers to the dynamic table, which the client disables")
    return ":status" if index in _STATIC_STATUS else f"#{index}"


def _number(block: bytes, place: int, bits: int) -> tuple[int, int]:
    limit = (1 << bits) - 1
    number = block[place] & limit
    place += 1
    if number < limit:
        return number, place
    for shift in range(0, _LARGEST_SHIFT + 1, 7):
        byte = block[place]
        place += 1
        number += (byte & 127) << shift
        if byte < 128:
            return number, place
    raise HeaderError("an integer is too large")


def _string(block: bytes, place: int) -> tuple[str, int]:
    is_huffman = block[place] & 128
    length, place = _number(block, place, 7)
    if place + length > len(block):
        raise IndexError
    data = block[place : place + length]
    return (_unpack(data) if is_huffman else data).decode("latin-1"), place + length


def _unpack(data: bytes) -> bytes:
    text = bytearray()
    code, length = 0, 0
    for byte in data:
        for shift in range(7, -1, -1):
            code, length = code << 1 | byte >> shift & 1, length + 1
            if (symbol := _SYMBOLS.get((length, code))) is not None:
                text.append(symbol)
                code, length = 0, 0
    if length > _LONGEST_PADDING or code != (1 << length) - 1:
        raise HeaderError("a Huffman-encoded string ends within a character")
    return bytes(text)


def _canonical() -> dict[tuple[int, int], int]:
    """Returns the byte of each Huffman code, by the length and value of the code."""
    order = sorted(range(256), key=lambda symbol: (_LENGTHS[symbol], symbol))
    codes = {(_LENGTHS[order[0]], 0): order[0]}
    code = 0
    for before, symbol in pairwise(order):
        code = code + 1 << _LENGTHS[symbol] - _LENGTHS[before]
        codes[_LENGTHS[symbol], code] = symbol
    return codes


_SYMBOLS = _canonical()
