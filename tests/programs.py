"""Locates optional programs that tests compare with."""

import json
import os
import shutil
from pathlib import Path
from typing import NoReturn

import pytest

from servers.server_process import REPOSITORY


def program(name: str, package: str) -> str:
    """Returns the path of a program; without it the test skips, or fails in CI, where `make test-tools` installs it."""
    return shutil.which(name) or _missing(f"{name}, from Debian's package {package}")


def node_modules(folder: Path) -> Path:
    """Returns the folder of the modules of a package.json; if one is missing, the test skips or fails as above."""
    modules = folder / "node_modules"
    needed = json.loads((folder / "package.json").read_text())["dependencies"]
    there = all((modules / name).is_dir() for name in needed)
    return modules if there else _missing(f"the modules of {folder.name}/package.json")


def node_program(folder: Path, name: str) -> Path:
    """Returns the path of a program of one of the modules of a package.json."""
    return node_modules(folder) / ".bin" / name


def environment_python(name: str) -> Path:
    """Returns the Python of another environment that `make test` creates."""
    path = REPOSITORY / f".venv-{name}/bin/python"
    return path if path.exists() else _missing(f".venv-{name}", f"make .venv-{name}/installed")


def _missing(what: str, command: str = "make test-tools") -> NoReturn:
    reason = f"needs {what} ({command})"
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)
