"""What can go wrong while serving, and the one table that turns it into a gRPC status."""

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
"""The reasons of `medserve_refused_total`."""


MAX_LISTING = 400
"""Characters of a list of names in an error."""


@dataclass(frozen=True, slots=True)
class FieldViolation:
    """One bad field of a request: its path, and what it was, what was expected and what to do."""

    field: str
    description: str


class ServingError(Exception):
    """A request that can't be answered, for a reason its sender should read."""

    limit: Limit | None = None
    """What refused it, where that was a limit."""

    def __init__(self, message: str, violations: Sequence[FieldViolation] = (), limit: Limit | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.violations = tuple(violations)
        self.limit = limit or self.limit


class InvalidInput(ServingError):
    """The request itself is wrong."""

    def __init__(self, violations: Sequence[FieldViolation], limit: Limit | None = None) -> None:
        first, more = violations[0], len(violations) - 1
        tail = f" (and {more} more: see the error's details)" if more else ""
        field = f"{first.field}: " if first.field else ""
        super().__init__(f"{field}{first.description}{tail}", violations, limit)

    @classmethod
    def of(cls, field: str, description: str, limit: Limit | None = None) -> "InvalidInput":
        """An error about a single field."""
        return cls([FieldViolation(field, description)], limit)


class NotFound(ServingError):
    """The request names a model or a version that is not served."""


class WrongModel(ServingError):
    """The model is served, but not for this kind of request."""


class Unauthenticated(ServingError):
    """The call carries no token, or one that is not known."""

    limit: Limit | None = "unauthenticated"


class PermissionDenied(ServingError):
    """The token is known, and its scopes do not cover the method, or the priority that is asked for."""

    limit: Limit | None = "permission"


class ModelRefused(ServingError):
    """A model that can't be loaded as it lies in the repository."""


class Overloaded(ServingError):
    """The queue is full, or another bound on what is under way is reached."""

    limit: Limit | None = "queue"


class MessageTooLarge(ServingError):
    """The request has more bytes than are accepted."""

    limit: Limit | None = "message_size"


class DeadlineExceeded(ServingError):
    """The request's deadline passed while it waited."""


class Unavailable(ServingError):
    """The server cannot answer now: it is starting or stopping, or the model hangs or has just been closed."""


class InferenceFailed(ServingError):
    """The model failed on a valid request."""


class Unsupported(ServingError):
    """A part of the protocol that this server does not have."""


class ModelLoadError(Exception):
    """A model file that can't be served; the message names the file and the reason."""


class TransientLoadError(ModelLoadError):
    """A model file that can't be read or loaded at the moment, for a reason that its content is not to blame for."""


class ProviderUnavailable(ModelLoadError):
    """The execution provider that was asked for can't be had on this machine."""


def listing(names: Sequence[str]) -> str:
    """The names, separated by commas; of a long list the first ones, and how many more there are."""
    length = 0
    for count, name in enumerate(names):
        length += len(name) + 2
        if count and length > MAX_LISTING:
            return f"{', '.join(names[:count])} and {len(names) - count} more"
    return ", ".join(names)


def printable(text: str) -> str:
    """The text on one line of ASCII, cut: what comes out of a model's file or its name may hold anything."""
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
