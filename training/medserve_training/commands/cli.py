"""Main function and argument parser of `medserve-train`."""

import argparse
import contextlib
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from types import FrameType
from typing import NoReturn

from medserve_proto.standard_options import add_standard_options
from medserve_training.commands import (
    article_risk,
    crossval,
    evaluate,
    fit,
    init,
    quantize,
    repeat,
    tune,
    verify,
)
from medserve_training.commands.arguments import data_folder, model_file
from medserve_training.commands.output import new_console
from medserve_training.errors import UserError

_EXIT_STATUS = """exit status:
  0    success
  1    the data, a file or an option has to be corrected, or a figure differs (verify); no file was written
  2    the command line is invalid
  130  interrupted; no unfinished file is left
  143  terminated; no unfinished file is left

repeat keeps the models of finished seeds and resumes from them when it is run again."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command.

    Args:
        arguments: Command-line arguments; by default those of the process.

    Returns:
        The exit status; `medserve-train --help` lists them.

    Raises:
        SystemExit: After `--help`, or with status 2 if the arguments are invalid.
    """
    parser = _parser()
    add_standard_options(parser)
    options = parser.parse_args(arguments)
    received: list[int] = []
    try:
        with _raising_on_signals(received):
            return int(options.run(options))
    except (Exception, KeyboardInterrupt) as error:
        if received:  # a library may have converted the handler's exception
            _print_error("interrupted" if received[0] == signal.SIGINT else "terminated")
            return 128 + received[0]
        if isinstance(error, UserError):
            _print_error(str(error))
        elif isinstance(error, OSError):  # a full disk, a folder without permission
            _print_error(f"{error.filename}: {error.strerror}" if error.filename else str(error))
        else:
            raise
        return 1


def _print_error(text: str) -> None:
    new_console(stderr=True).print(f"medserve-train: {text}", style="red", highlight=False, soft_wrap=True)


@contextlib.contextmanager
def _raising_on_signals(received: list[int]) -> Iterator[None]:
    """Makes SIGINT and SIGTERM raise KeyboardInterrupt, so that unfinished files are removed, and records them.

    A signal that is ignored, like SIGINT in a background job of a shell, stays ignored.
    """

    def interrupt(number: int, frame: FrameType | None) -> NoReturn:
        del frame
        received.append(number)
        raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    numbers = [number for number in (signal.SIGINT, signal.SIGTERM) if signal.getsignal(number) != signal.SIG_IGN]
    before = {number: signal.signal(number, interrupt) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="medserve-train",
        description="Trains a model on your data and exports it as one self-contained ONNX file.",
        epilog=_EXIT_STATUS,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    data, model = data_folder(), model_file()
    init.add(commands)
    fit.add(commands, data)
    repeat.add(commands, data)
    tune.add(commands, data)
    evaluate.add(commands, model)
    verify.add(commands, model)
    quantize.add(commands, model)
    crossval.add(commands, data)
    article_risk.add(commands)
    return parser


if __name__ == "__main__":
    sys.exit(main())
