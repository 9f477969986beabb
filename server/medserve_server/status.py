"""A ServingError as it travels: a google.rpc.Status that fits into the metadata of a response."""

from collections.abc import Iterable

import grpc
from google.rpc import error_details_pb2, status_pb2

from medserve_server.errors import STATUS, Overloaded, ServingError

CODES: dict[object, grpc.StatusCode] = {code.value[0]: code for code in grpc.StatusCode}
CODES |= {code: code for code in grpc.StatusCode}
"""gRPC's codes, by their numbers and by themselves."""

DETAILS_KEY = "grpc-status-details-bin"
"""Where gRPC's clients look for the google.rpc.Status."""

# gRPC's clients refuse a response with more than 8 KiB of metadata. An error puts its message there twice:
# percent-encoded in grpc-message, and in the status, which base64 makes a third longer.
MAX_MESSAGE_BYTES = 1024
MAX_FIELD_BYTES = 512
MAX_STATUS_BYTES = 4096

_PLAIN = bytes(byte for byte in range(0x20, 0x7F) if byte != ord("%"))
"""What percent-encoding leaves as it is (gRPC over HTTP/2, section "Responses"); any other byte takes three."""
_CUT = " ... "


def to_status(error: ServingError) -> status_pb2.Status:
    """The error as clients read it: code, message, and what else is to be said of it.

    That is a google.rpc.BadRequest that names the fields, or, where the same request may be answered at another time, a
    google.rpc.ErrorInfo that names the limit. Long texts are cut in the middle. Of many violations the last ones are
    left out; the first one never is.
    """
    status = status_pb2.Status(code=STATUS[type(error)].value[0], message=shortened(error.message, MAX_MESSAGE_BYTES))
    left = MAX_STATUS_BYTES - status.ByteSize() - 64  # for the type's name
    bad_request = error_details_pb2.BadRequest()
    for violation in error.violations:
        entry = error_details_pb2.BadRequest.FieldViolation(
            field=shortened(violation.field, MAX_FIELD_BYTES),
            description=shortened(violation.description, MAX_MESSAGE_BYTES),
        )
        left -= entry.ByteSize() + 4
        if left < 0:
            break
        bad_request.field_violations.append(entry)
    if error.violations:
        status.details.add().Pack(bad_request)
    if isinstance(error, Overloaded):
        status.details.add().Pack(error_details_pb2.ErrorInfo(reason=str(error.limit).upper(), domain="medserve"))
    return status


def to_trailers(status: status_pb2.Status) -> tuple[tuple[str, bytes]]:
    """The status as metadata."""
    return ((DETAILS_KEY, status.SerializeToString()),)


def shortened(text: str, most: int) -> str:
    """The text, without its middle where it takes more than `most` bytes when it is percent-encoded."""
    text = text.encode(errors="backslashreplace").decode()  # protobuf takes no half of a surrogate pair
    if len(text) <= most and _encoded_bytes(text) <= most:
        return text
    room = most - len(_CUT)
    end = _fitting(reversed(text), room // 3)
    return text[: _fitting(text, room - room // 3)] + _CUT + text[len(text) - end :]


def _encoded_bytes(text: str) -> int:
    data = text.encode()
    return len(data) + 2 * len(data.translate(None, _PLAIN))


def _fitting(characters: Iterable[str], room: int) -> int:
    """How many of the characters take at most `room` bytes when they are percent-encoded."""
    count = 0
    for character in characters:
        room -= _encoded_bytes(character)
        if room < 0:
            break
        count += 1
    return count
