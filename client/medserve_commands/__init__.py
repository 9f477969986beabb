"""Entry points of the commands, which exit on Ctrl-C without a traceback, even while modules are imported.

Importing a command's modules takes up to a second, during which Python would answer Ctrl-C with a traceback. This
module imports only what loads quickly.
"""

import os
import signal

_INTERRUPTED = 130
"""Exit status that shells report for a process terminated by SIGINT."""


def medserve() -> int:
    """Runs the `medserve` command and returns its exit status."""
    try:
        _end_when_interrupted()
        os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # its TLS log lines would precede the command's own messages
        from medserve_client.cli import main  # noqa: PLC0415

        _raise_when_interrupted()
        return main()
    except KeyboardInterrupt:
        return _INTERRUPTED


def medserve_server() -> int:
    """Runs the `medserve-server` command and returns its exit status."""
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
    """Runs the `medserve-train` command and returns its exit status."""
    try:
        _end_when_interrupted()
        from medserve_training.__main__ import loaded  # noqa: PLC0415

        train = loaded()
        _raise_when_interrupted()
        return train()
    except KeyboardInterrupt:
        return _INTERRUPTED


def _end_when_interrupted() -> None:
    """Makes SIGINT exit the process immediately: libraries may swallow a KeyboardInterrupt while they load."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # not ignored, as in a shell's background jobs
        signal.signal(signal.SIGINT, lambda *_: os._exit(_INTERRUPTED))


def _raise_when_interrupted() -> None:
    """Restores KeyboardInterrupt, which lets the command clean up."""
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
