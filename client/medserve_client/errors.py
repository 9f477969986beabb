"""What a call raises: one exception for each kind of failure, with the fields that are wrong."""

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass

import grpc
from google.protobuf.message import DecodeError
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo
from google.rpc.status_pb2 import Status

# Where gRPC carries a google.rpc.Status beside the plain code and message.
_DETAILS_KEY = "grpc-status-details-bin"

_ITEM = re.compile(r"(?:images|patients)\[(\d+)\]")
_FEATURE = re.compile(r"patients\[\d+\]\.features\[(.+)\]")


@dataclass(frozen=True, slots=True)
class FieldViolation:
    """One field of a request that the server refused.

    Attributes:
        field: its path, e.g. `patients[3].features[age]`.
        description: what it was and what was expected.
    """

    field: str
    description: str

    @property
    def item(self) -> int | None:
        """Index of the image or patient it belongs to; None where it belongs to the whole request."""
        match = _ITEM.match(self.field)
        return int(match[1]) if match else None

    @property
    def feature(self) -> str | None:
        """Name of the feature it is about, if it is about one."""
        match = _FEATURE.match(self.field)
        return match[1] if match else None


class InferenceError(Exception):
    """A call that was refused, or that failed on its way.

    Attributes:
        code: the gRPC status.
        message: for a reader.
        violations: the fields that are wrong; empty where none was named.
    """

    def __init__(self, code: grpc.StatusCode, message: str, violations: Sequence[FieldViolation] = ()) -> None:
        super().__init__(code, message, violations)
        self.code = code
        self.message = message
        self.violations = tuple(violations)

    def __str__(self) -> str:
        lines = [f"{self.code.name}: {self.message}"]
        if len(self.violations) > 1:  # a single one stands in the message
            lines += [f"  {violation.field}: {violation.description}" for violation in self.violations]
        return "\n".join(lines)


class InvalidArgumentError(InferenceError):
    """The request is wrong; `violations` says where."""


class NotFoundError(InferenceError):
    """The server has no such model, version or service."""


class FailedPreconditionError(InferenceError):
    """The model is there, but not for this kind of request."""


class UnauthenticatedError(InferenceError):
    """The server asks for a token, and got none or one that it does not know."""


class PermissionDeniedError(InferenceError):
    """The token's scopes do not cover the call."""


class ResourceExhaustedError(InferenceError):
    """A message is larger than the server or the client allows, or it is an OverloadedError."""


class OverloadedError(ResourceExhaustedError):
    """The server is too busy, or was lately and the client does not send it more; it may be better later."""


class DeadlineExceededError(InferenceError):
    """No answer came within the timeout."""


class UnavailableError(InferenceError):
    """No server was reached, or it is starting or stopping; the retries are used up."""


class TlsMismatchError(UnavailableError):
    """The server expects TLS and the client does not use it, or the other way round."""


_CLASSES: dict[grpc.StatusCode, type[InferenceError]] = {
    grpc.StatusCode.INVALID_ARGUMENT: InvalidArgumentError,
    grpc.StatusCode.NOT_FOUND: NotFoundError,
    grpc.StatusCode.FAILED_PRECONDITION: FailedPreconditionError,
    grpc.StatusCode.UNAUTHENTICATED: UnauthenticatedError,
    grpc.StatusCode.PERMISSION_DENIED: PermissionDeniedError,
    grpc.StatusCode.RESOURCE_EXHAUSTED: ResourceExhaustedError,
    grpc.StatusCode.DEADLINE_EXCEEDED: DeadlineExceededError,
    grpc.StatusCode.UNAVAILABLE: UnavailableError,
}
_CODES: dict[int, grpc.StatusCode] = {code.value[0]: code for code in grpc.StatusCode}


@contextmanager
def rpc_errors_translated() -> Iterator[None]:
    """Turns the grpc.RpcError of a call inside it into an InferenceError."""
    try:
        yield
    except grpc.RpcError as error:
        raise _from_rpc_error(error) from error


def from_status(status: Status) -> InferenceError:
    """The error that a stream reports for one of its requests."""
    return _error(_CODES.get(status.code, grpc.StatusCode.UNKNOWN), status.message, status)


def _from_rpc_error(error: grpc.RpcError) -> InferenceError:
    metadata: dict[str, str | bytes] = dict(error.trailing_metadata() or ())  # type: ignore[arg-type]  # pairs
    status = Status()
    if isinstance(details := metadata.get(_DETAILS_KEY), bytes):
        with suppress(DecodeError):  # another's details, a proxy's perhaps: the plain code and message still hold
            status = Status.FromString(details)
    return _error(error.code(), error.details() or "", status)


def _error(code: grpc.StatusCode, message: str, status: Status) -> InferenceError:
    kind = _CLASSES.get(code, InferenceError)
    # Of the limits behind this code, the server names those that another time may be kept.
    if kind is ResourceExhaustedError and any(detail.Unpack(ErrorInfo()) for detail in status.details):
        kind = OverloadedError
    return kind(code, message, _violations(status))


def _violations(status: Status) -> list[FieldViolation]:
    """Every field named by the BadRequest details of a status."""
    found = []
    for detail in status.details:
        bad_request = BadRequest()
        if detail.Unpack(bad_request):
            found += [FieldViolation(one.field, one.description) for one in bad_request.field_violations]
    return found
