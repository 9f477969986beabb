"""The frames and numbers of HTTP/2 (RFC 9113)."""

import struct
from dataclasses import dataclass, field

FRAME = struct.Struct(">HBBBI")  # length, in two parts; type; flags; stream
DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = 0, 1, 3, 4, 6, 7, 8, 9
END_STREAM, ACK, END_HEADERS, PADDED, PRIORITY = 1, 1, 4, 8, 32
TABLE_SIZE, ENABLE_PUSH, MAX_STREAMS, INITIAL_WINDOW, MAX_FRAME = 1, 2, 3, 4, 5
CANCEL = 8
RESET = {7: "UNAVAILABLE", CANCEL: "CANCELLED", 11: "RESOURCE_EXHAUSTED", 12: "PERMISSION_DENIED"}
LARGEST_WINDOW = 2**31 - 1
DEFAULT_WINDOW = 65_535
DEFAULT_TABLE_SIZE = 4096
READ_BYTES = 1 << 18

_SETTINGS = struct.pack(">HIHIHI", TABLE_SIZE, 0, ENABLE_PUSH, 0, INITIAL_WINDOW, LARGEST_WINDOW)
# What a client says first: no dynamic table, no pushes, and send as much as you like.
HELLO = b"".join(
    (
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        FRAME.pack(0, len(_SETTINGS), SETTINGS, 0, 0) + _SETTINGS,
        FRAME.pack(0, 4, WINDOW_UPDATE, 0, 0) + struct.pack(">I", LARGEST_WINDOW - DEFAULT_WINDOW),
    )
)


@dataclass(slots=True)
class Upload:
    """What flow control has not let out of a stream yet."""

    window: int
    last_flags: int
    rest: bytearray = field(default_factory=bytearray)


def unpadded(payload: bytes, flags: int) -> bytes:
    """The content of a frame without its padding and its priority."""
    begin, end = 0, len(payload)
    if flags & PADDED:
        begin, end = 1, end - payload[0]
    return payload[begin + 5 if flags & PRIORITY else begin : end]


def split_messages(data: bytes) -> tuple[list[bytes], bytes]:
    """The gRPC messages in a stream's bytes, each with its prefix of five (the last four its length), and the rest."""
    messages = []
    place = 0
    while len(data) - place >= 5 and (after := place + 5 + int.from_bytes(data[place + 1 : place + 5])) <= len(data):
        messages.append(data[place:after])
        place = after
    return messages, data[place:]
