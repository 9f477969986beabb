"""Converts a ServingError into a google.rpc.Status that fits into the response metadata."""

from collections.abc import Iterable

import grpc
from google.rpc import error_details_pb2, status_pb2

from medserve_server.errors import STATUS, Overloaded, ServingError

CODES: dict[object, grpc.StatusCode] = {code.value[0]: code for code in grpc.StatusCode}
CODES |= {code: code for code in grpc.StatusCode}
"""Maps a code, given as a number or as a `grpc.StatusCode`, to the `grpc.StatusCode`."""

DETAILS_KEY = "grpc-status-details-bin"
"""Metadata key under which gRPC clients expect the google.rpc.Status."""

# gRPC clients reject a response with more than 8 KiB of metadata. An error message appears there twice:
# percent-encoded in grpc-message, and in the status, which base64 encoding makes a third longer.
MAX_MESSAGE_BYTES = 1024
MAX_FIELD_BYTES = 512
MAX_STATUS_BYTES = 4096

_PLAIN = bytes(byte for byte in range(0x20, 0x7F) if byte != ord("%"))
"""Bytes that percent-encoding leaves unchanged (gRPC over HTTP/2, section "Responses"); any other takes three."""
_CUT = " ... "


def to_status(error: ServingError) -> status_pb2.Status:
    """Returns the error as a status with code, message and details.

    The details are a google.rpc.BadRequest with the field violations and, for an error that may succeed on retry, a
    google.rpc.ErrorInfo with the limit that was exceeded. Long texts are truncated in the middle. If there are too many
    violations, the last ones are omitted, but never the first one.
    """
    status = status_pb2.Status(code=STATUS[type(error)].value[0], message=shortened(error.message, MAX_MESSAGE_BYTES))
    left = MAX_STATUS_BYTES - status.ByteSize() - 64  # for the type URLs
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
    """Returns the status as trailing metadata."""
    return ((DETAILS_KEY, status.SerializeToString()),)


def shortened(text: str, most: int) -> str:
    """Returns the text, truncated in the middle if its percent-encoded form exceeds `most` bytes."""
    text = text.encode(errors="backslashreplace").decode()  # protobuf rejects lone surrogates
    if len(text) <= most and _encoded_bytes(text) <= most:
        return text
    room = most - len(_CUT)
    end = _fitting(reversed(text), room // 3)
    return text[: _fitting(text, room - room // 3)] + _CUT + text[len(text) - end :]


def _encoded_bytes(text: str) -> int:
    data = text.encode()
    return len(data) + 2 * len(data.translate(None, _PLAIN))


def _fitting(characters: Iterable[str], room: int) -> int:
    """Returns how many of the leading characters fit into `room` bytes when percent-encoded."""
    count = 0
    for character in characters:
        room -= _encoded_bytes(character)
        if room < 0:
            break
        count += 1
    return count
