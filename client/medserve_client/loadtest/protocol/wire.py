"""Frame format and constants of HTTP/2 (RFC 9113)."""

import struct
from dataclasses import dataclass, field

FRAME = struct.Struct(">HBBBI")  # length, in two parts; type; flags; stream
DATA, HEADERS, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = 0, 1, 3, 4, 5, 6, 7, 8, 9
END_STREAM, ACK, END_HEADERS, PADDED, PRIORITY = 1, 1, 4, 8, 32
TABLE_SIZE, ENABLE_PUSH, MAX_STREAMS, INITIAL_WINDOW, MAX_FRAME = 1, 2, 3, 4, 5
NO_ERROR, REFUSED_STREAM, CANCEL = 0, 7, 8
RESET = {REFUSED_STREAM: "UNAVAILABLE", CANCEL: "CANCELLED", 11: "RESOURCE_EXHAUSTED", 12: "PERMISSION_DENIED"}
LARGEST_WINDOW = LARGEST_STREAM = 2**31 - 1
DEFAULT_WINDOW = 65_535
DEFAULT_TABLE_SIZE = 4096
DEFAULT_FRAME, LARGEST_FRAME = 16_384, 2**24 - 1

_SETTINGS = struct.pack(">HIHIHI", TABLE_SIZE, 0, ENABLE_PUSH, 0, INITIAL_WINDOW, LARGEST_WINDOW)
# Connection preface: no dynamic table, no server push, maximum flow-control windows.
HELLO = b"".join(
    (
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        FRAME.pack(0, len(_SETTINGS), SETTINGS, 0, 0) + _SETTINGS,
        FRAME.pack(0, 4, WINDOW_UPDATE, 0, 0) + struct.pack(">I", LARGEST_WINDOW - DEFAULT_WINDOW),
    )
)


class ProtocolError(Exception):
    """The server violates HTTP/2 or a limit of the client."""


@dataclass(slots=True)
class Upload:
    """Data of a stream that flow control has not allowed to be sent yet."""

    window: int
    last_flags: int
    rest: bytearray = field(default_factory=bytearray)


def unpadded(payload: bytes, flags: int) -> bytes:
    """Returns the content of a DATA frame without its padding.

    Raises:
        ProtocolError: the padding is longer than the frame.
    """
    if not flags & PADDED:
        return payload
    if not payload or payload[0] >= len(payload):
        raise ProtocolError("a frame has more padding than bytes")
    return payload[1 : len(payload) - payload[0]]


def header_block(payload: bytes, flags: int) -> bytes:
    """Returns the header block of a HEADERS frame without padding and priority.

    Raises:
        ProtocolError: the padding is longer than the frame.
    """
    return unpadded(payload, flags)[5 if flags & PRIORITY else 0 :]


def settings(payload: bytes) -> dict[int, int]:
    """Parses a SETTINGS frame.

    Raises:
        ProtocolError: the frame is truncated, or a setting has an invalid value.
    """
    if len(payload) % 6:
        raise ProtocolError("a SETTINGS frame is truncated")
    values = dict(struct.iter_unpack(">HI", payload))
    if values.get(INITIAL_WINDOW, 0) > LARGEST_WINDOW:
        raise ProtocolError("the initial window is too large")
    if not DEFAULT_FRAME <= values.get(MAX_FRAME, DEFAULT_FRAME) <= LARGEST_FRAME:
        raise ProtocolError("the maximum frame size is invalid")
    return values


def split_messages(data: bytearray, largest: int) -> list[bytes]:
    """Removes the complete gRPC messages from `data` and returns them, each with its five-byte prefix.

    The last four bytes of the prefix are the length of the message.

    Raises:
        ProtocolError: a message is longer than `largest`.
    """
    messages = []
    place = 0
    while len(data) - place >= 5:
        size = int.from_bytes(data[place + 1 : place + 5])
        if size > largest:
            raise ProtocolError(f"a message has {size} bytes, expected at most {largest}")
        if (after := place + 5 + size) > len(data):
            break
        messages.append(bytes(data[place:after]))
        place = after
    del data[:place]
    return messages
