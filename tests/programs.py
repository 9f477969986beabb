"""Programs that tests compare with, and that a user's machine may lack."""

import json
import os
import shutil
from pathlib import Path
from typing import NoReturn

import pytest

from server_process import REPOSITORY


def program(name: str, package: str) -> str:
    """The path of a program; without it the test skips, except in CI, where `make test-tools` has installed it."""
    return shutil.which(name) or _missing(f"{name}, from Debian's package {package}")


def node_modules(folder: Path) -> Path:
    """Where the modules of a package.json lie; without one of them the test skips or fails as without a program."""
    modules = folder / "node_modules"
    needed = json.loads((folder / "package.json").read_text())["dependencies"]
    there = all((modules / name).is_dir() for name in needed)
    return modules if there else _missing(f"the modules of {folder.name}/package.json")


def node_program(folder: Path, name: str) -> Path:
    """A program that one of the modules of a package.json brings."""
    return node_modules(folder) / ".bin" / name


def environment_python(name: str) -> Path:
    """Python of an environment that `make test` makes beside this one."""
    path = REPOSITORY / f".venv-{name}/bin/python"
    return path if path.exists() else _missing(f".venv-{name}", f"make .venv-{name}/installed")


def _missing(what: str, command: str = "make test-tools") -> NoReturn:
    reason = f"needs {what} ({command})"
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)
