"""Where the commands start: an interrupt ends them without a traceback from the first moment.

Importing what a command needs takes up to a second, in which Python would answer Ctrl-C with a traceback. Nothing is
imported here that takes time.
"""

import os
import signal

_INTERRUPTED = 130
"""The exit status, as a shell has it for a process that SIGINT ended."""


def medserve() -> int:
    """Runs the command `medserve`, and returns its exit status."""
    try:
        _end_when_interrupted()
        os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # its lines about TLS would stand before the command's own
        from medserve_client.cli import main  # noqa: PLC0415

        _raise_when_interrupted()
        return main()
    except KeyboardInterrupt:
        return _INTERRUPTED


def medserve_server() -> int:
    """Runs the command `medserve-server`, and returns its exit status."""
    try:
        _end_when_interrupted()
        from medserve_server.__main__ import loaded  # noqa: PLC0415

        serve = loaded()
        _raise_when_interrupted()
        serve()
    except KeyboardInterrupt:
        return _INTERRUPTED
    return 0


def medserve_train() -> int:
    """Runs the command `medserve-train`, and returns its exit status."""
    try:
        _end_when_interrupted()
        from medserve_training.__main__ import loaded  # noqa: PLC0415

        train = loaded()
        _raise_when_interrupted()
        return train()
    except KeyboardInterrupt:
        return _INTERRUPTED


def _end_when_interrupted() -> None:
    """Ends the process at once when it is interrupted: libraries may swallow a KeyboardInterrupt while they load."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # not ignored, as in a shell's background jobs
        signal.signal(signal.SIGINT, lambda *_: os._exit(_INTERRUPTED))


def _raise_when_interrupted() -> None:
    """Lets the command clean up from now on."""
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
