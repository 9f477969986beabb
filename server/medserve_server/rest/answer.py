"""Responses of REST endpoints, and the mapping of gRPC statuses to HTTP."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import grpc
import orjson
from google.protobuf.json_format import MessageToDict
from google.rpc import error_details_pb2, status_pb2  # noqa: F401 - MessageToDict needs the detail types registered

Headers = Sequence[tuple[bytes, bytes]]
ErrorBody = Callable[[int, status_pb2.Status], bytes]
"""Serializes an error as JSON, given its HTTP status and its gRPC status."""

JSON = (b"content-type", b"application/json")

# https://github.com/googleapis/googleapis/blob/master/google/rpc/code.proto
HTTP_STATUS = {
    grpc.StatusCode.OK: 200,
    grpc.StatusCode.CANCELLED: 499,
    grpc.StatusCode.UNKNOWN: 500,
    grpc.StatusCode.INVALID_ARGUMENT: 400,
    grpc.StatusCode.DEADLINE_EXCEEDED: 504,
    grpc.StatusCode.NOT_FOUND: 404,
    grpc.StatusCode.ALREADY_EXISTS: 409,
    grpc.StatusCode.PERMISSION_DENIED: 403,
    grpc.StatusCode.UNAUTHENTICATED: 401,
    grpc.StatusCode.RESOURCE_EXHAUSTED: 429,
    grpc.StatusCode.FAILED_PRECONDITION: 400,
    grpc.StatusCode.ABORTED: 409,
    grpc.StatusCode.OUT_OF_RANGE: 400,
    grpc.StatusCode.UNIMPLEMENTED: 501,
    grpc.StatusCode.INTERNAL: 500,
    grpc.StatusCode.UNAVAILABLE: 503,
    grpc.StatusCode.DATA_LOSS: 500,
}
_NAMES = {code.value[0]: code.name for code in grpc.StatusCode}


@dataclass(frozen=True, slots=True)
class Answer:
    """A response."""

    body: bytes
    headers: Headers = (JSON,)
    status: int = 200

    @classmethod
    def json(cls, content: Any, status: int = 200) -> "Answer":  # noqa: ANN401 - any JSON value
        """Creates a JSON response; NumPy arrays are serialized as lists."""
        return cls(orjson.dumps(content, option=orjson.OPT_SERIALIZE_NUMPY), status=status)


class HttpError(Exception):
    """Ends a request with an error response."""

    def __init__(self, status: int, body: bytes, headers: Headers = ()) -> None:
        super().__init__(status)
        self.answer = Answer(body, (JSON, *headers), status)


def short_error(_: int, status: status_pb2.Status) -> bytes:
    """Returns an error in the format of the Open Inference Protocol, `{"error": MESSAGE}`."""
    return orjson.dumps({"error": status.message})


def long_error(http_status: int, status: status_pb2.Status) -> bytes:
    """Returns an error in the format of Google's APIs, a google.rpc.Status with details (https://google.aip.dev/193)."""
    error: dict[str, Any] = {
        "code": http_status,
        "message": status.message,
        "status": _NAMES.get(status.code, "UNKNOWN"),
    }
    if status.details:
        error["details"] = MessageToDict(status)["details"]
    return orjson.dumps({"error": error})
