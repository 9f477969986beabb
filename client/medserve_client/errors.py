"""Exceptions raised by calls: one class for each kind of failure, with the invalid fields."""

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass

import grpc
from google.protobuf.message import DecodeError
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo
from google.rpc.status_pb2 import Status

# Trailing metadata key of a google.rpc.Status, sent in addition to the status code and message.
_DETAILS_KEY = "grpc-status-details-bin"

_ITEM = re.compile(r"(?:images|patients)\[(\d+)\]")
_FEATURE = re.compile(r"patients\[\d+\]\.features\[(.+)\]")


@dataclass(frozen=True, slots=True)
class FieldViolation:
    """An invalid field of a request.

    Attributes:
        field: field path, e.g. `patients[3].features[age]`.
        description: the value and what was expected.
    """

    field: str
    description: str

    @property
    def item(self) -> int | None:
        """Index of the image or patient that the field belongs to; None for a field of the request as a whole."""
        match = _ITEM.match(self.field)
        return int(match[1]) if match else None

    @property
    def feature(self) -> str | None:
        """Name of the feature, or None if the field is not a feature."""
        match = _FEATURE.match(self.field)
        return match[1] if match else None


class InferenceError(Exception):
    """A call was rejected or failed.

    Attributes:
        code: gRPC status code.
        message: human-readable error message.
        violations: invalid fields of the request; may be empty.
    """

    def __init__(self, code: grpc.StatusCode, message: str, violations: Sequence[FieldViolation] = ()) -> None:
        super().__init__(code, message, violations)
        self.code = code
        self.message = message
        self.violations = tuple(violations)

    def __str__(self) -> str:
        lines = [f"{self.code.name}: {self.message}"]
        if len(self.violations) > 1:  # a single one is part of the message
            lines += [f"  {violation.field}: {violation.description}" for violation in self.violations]
        return "\n".join(lines)


class InvalidArgumentError(InferenceError):
    """The request is invalid; `violations` lists the invalid fields."""


class NotFoundError(InferenceError):
    """The model, version or service does not exist on the server."""


class FailedPreconditionError(InferenceError):
    """The model exists but does not support this kind of request."""


class UnauthenticatedError(InferenceError):
    """The token is missing or unknown to the server."""


class PermissionDeniedError(InferenceError):
    """The token's scopes do not cover the call."""


class ResourceExhaustedError(InferenceError):
    """A message exceeds the size limit of the server or the client; also the base class of OverloadedError."""


class OverloadedError(ResourceExhaustedError):
    """The server is overloaded, or was recently and the client withheld the call; retry later."""


class DeadlineExceededError(InferenceError):
    """No response arrived within the timeout."""


class UnavailableError(InferenceError):
    """The server is unreachable, starting or stopping, and the retries are exhausted."""


class TlsMismatchError(UnavailableError):
    """The server expects TLS and the client does not use it, or vice versa."""


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
    """Translates a grpc.RpcError raised in the block into an InferenceError."""
    try:
        yield
    except grpc.RpcError as error:
        raise _from_rpc_error(error) from error


def from_status(status: Status) -> InferenceError:
    """Returns the error that a stream reports for one of its requests."""
    return _error(_CODES.get(status.code, grpc.StatusCode.UNKNOWN), status.message, status)


def _from_rpc_error(error: grpc.RpcError) -> InferenceError:
    metadata: dict[str, str | bytes] = dict(error.trailing_metadata() or ())  # type: ignore[arg-type]  # pairs
    status = Status()
    if isinstance(details := metadata.get(_DETAILS_KEY), bytes):
        with suppress(DecodeError):  # details of another format, e.g. from a proxy; the code and message still apply
            status = Status.FromString(details)
    return _error(error.code(), error.details() or "", status)


def _error(code: grpc.StatusCode, message: str, status: Status) -> InferenceError:
    kind = _CLASSES.get(code, InferenceError)
    # The server attaches an ErrorInfo to the limits with this code that are transient.
    if kind is ResourceExhaustedError and any(detail.Unpack(ErrorInfo()) for detail in status.details):
        kind = OverloadedError
    return kind(code, message, _violations(status))


def _violations(status: Status) -> list[FieldViolation]:
    """Returns the field violations in the BadRequest details of a status."""
    found = []
    for detail in status.details:
        bad_request = BadRequest()
        if detail.Unpack(bad_request):
            found += [FieldViolation(one.field, one.description) for one in bad_request.field_violations]
    return found
