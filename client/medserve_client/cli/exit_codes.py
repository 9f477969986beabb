"""What the command's exit status tells a script."""

from enum import IntEnum

import grpc

from medserve_client.errors import InferenceError

SUMMARY = """exit status:
  0    all is well
  1    some files, rows or requests failed; the others are done
  2    the command line or an input file is wrong
  3    no answer: the server can't be reached, is not serving, is too busy, too slow or broken
  4    the server refused the request: no such model, version or service, or an invalid argument
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
    """The command line or an input file is wrong; the message says how."""


def of(error: InferenceError) -> ExitCode:
    """The exit status for a call that failed."""
    return ExitCode.REFUSED if error.code in _REFUSED else ExitCode.NO_ANSWER
