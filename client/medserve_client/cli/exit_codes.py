"""Exit statuses of the `medserve` command."""

from enum import IntEnum

import grpc

from medserve_client.errors import InferenceError

SUMMARY = """exit status:
  0    success
  1    some files, rows or requests failed; the others are done
  2    the command line or an input file is invalid
  3    no response: the server is unreachable, not serving, overloaded, too slow or broken
  4    the server rejected the request: no such model, version or service, or an invalid argument
  130  interrupted"""

_REFUSED = {
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.NOT_FOUND,
    grpc.StatusCode.FAILED_PRECONDITION,
    grpc.StatusCode.OUT_OF_RANGE,
    grpc.StatusCode.UNIMPLEMENTED,
    grpc.StatusCode.UNAUTHENTICATED,
    grpc.StatusCode.PERMISSION_DENIED,
}


class ExitCode(IntEnum):
    """The exit status of the command."""

    OK = 0
    SOME_FAILED = 1
    USAGE = 2
    NO_ANSWER = 3
    REFUSED = 4
    INTERRUPTED = 130


class UsageError(Exception):
    """The command line or an input file is invalid; the message says why."""


def of(error: InferenceError) -> ExitCode:
    """Returns the exit status for a failed call."""
    return ExitCode.REFUSED if error.code in _REFUSED else ExitCode.NO_ANSWER
