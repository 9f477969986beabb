"""Errors of the server, and their mapping to gRPC status codes."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import grpc

Limit = Literal[
    "unauthenticated",
    "permission",
    "calls",
    "client_calls",
    "client_rate",
    "queue",
    "deadline",
    "message_size",
    "name_length",
    "rows",
    "features",
    "tensors",
    "pixels",
    "decompression",
    "image_parts",
]
"""Values of the label `reason` of `medserve_refused_total`."""


MAX_LISTING = 400
"""Maximum length of a list of names in an error message, in characters."""


@dataclass(frozen=True, slots=True)
class FieldViolation:
    """An invalid field of a request: its path, and a description with its value, what was expected and what to do."""

    field: str
    description: str


class ServingError(Exception):
    """Base class of errors whose message is sent to the client."""

    limit: Limit | None = None
    """The limit that was exceeded, if any."""

    def __init__(self, message: str, violations: Sequence[FieldViolation] = (), limit: Limit | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.violations = tuple(violations)
        self.limit = limit or self.limit


class InvalidInput(ServingError):
    """The request is invalid."""

    def __init__(self, violations: Sequence[FieldViolation], limit: Limit | None = None) -> None:
        first, more = violations[0], len(violations) - 1
        tail = f" (and {more} more: see the error's details)" if more else ""
        field = f"{first.field}: " if first.field else ""
        super().__init__(f"{field}{first.description}{tail}", violations, limit)

    @classmethod
    def of(cls, field: str, description: str, limit: Limit | None = None) -> "InvalidInput":
        """Creates an error about a single field."""
        return cls([FieldViolation(field, description)], limit)


class NotFound(ServingError):
    """The request names a model or a version that is not served."""


class WrongModel(ServingError):
    """The model is served, but not for this kind of request."""


class Unauthenticated(ServingError):
    """The call has no token or an unknown one."""

    limit: Limit | None = "unauthenticated"


class PermissionDenied(ServingError):
    """The token is valid, but its scopes do not include the method or the requested priority."""

    limit: Limit | None = "permission"


class ModelRefused(ServingError):
    """The model in the repository cannot be loaded."""


class Overloaded(ServingError):
    """The queue is full, or another limit on concurrent work is reached."""

    limit: Limit | None = "queue"


class MessageTooLarge(ServingError):
    """The request exceeds the maximum message size."""

    limit: Limit | None = "message_size"


class DeadlineExceeded(ServingError):
    """The request's deadline expired while it was waiting."""


class Unavailable(ServingError):
    """The server cannot answer now: it is starting or stopping, or the model hangs or was just unloaded."""


class InferenceFailed(ServingError):
    """The model failed on a valid request."""


class Unsupported(ServingError):
    """A feature of the protocol that this server does not implement."""


class ModelLoadError(Exception):
    """A model file cannot be served; the message names the file and the reason."""


class TransientLoadError(ModelLoadError):
    """A model file cannot be read or loaded at the moment, for a reason unrelated to its content."""


class ProviderUnavailable(ModelLoadError):
    """The requested execution provider is unavailable on this machine."""


def listing(names: Sequence[str]) -> str:
    """Returns the names separated by commas; a long list is truncated and ends with the number of omitted names."""
    length = 0
    for count, name in enumerate(names):
        length += len(name) + 2
        if count and length > MAX_LISTING:
            return f"{', '.join(names[:count])} and {len(names) - count} more"
    return ", ".join(names)


def printable(text: str) -> str:
    """Returns the text as one line of escaped ASCII, truncated: text from a model file or its name may be arbitrary."""
    return text[:1000].encode("unicode_escape").decode("ascii")


STATUS: dict[type[ServingError], grpc.StatusCode] = {
    InvalidInput: grpc.StatusCode.INVALID_ARGUMENT,
    NotFound: grpc.StatusCode.NOT_FOUND,
    WrongModel: grpc.StatusCode.FAILED_PRECONDITION,
    Unauthenticated: grpc.StatusCode.UNAUTHENTICATED,
    PermissionDenied: grpc.StatusCode.PERMISSION_DENIED,
    ModelRefused: grpc.StatusCode.FAILED_PRECONDITION,
    Overloaded: grpc.StatusCode.RESOURCE_EXHAUSTED,
    MessageTooLarge: grpc.StatusCode.RESOURCE_EXHAUSTED,
    DeadlineExceeded: grpc.StatusCode.DEADLINE_EXCEEDED,
    Unavailable: grpc.StatusCode.UNAVAILABLE,
    InferenceFailed: grpc.StatusCode.INTERNAL,
    Unsupported: grpc.StatusCode.UNIMPLEMENTED,
}
