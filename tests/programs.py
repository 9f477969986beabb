"""Programs that tests compare with, and that a user's machine may lack."""

import os
import shutil
from pathlib import Path
from typing import NoReturn

import pytest


def program(name: str, package: str) -> str:
    """The path of a program; without it the test skips, except in CI, where `make test-tools` has installed it."""
    return shutil.which(name) or _missing(f"{name}, from Debian's package {package}")


def node_modules(folder: Path) -> Path:
    """Where the modules of a package.json lie; without them the test skips or fails as without a program."""
    modules = folder / "node_modules"
    return modules if modules.is_dir() else _missing(f"the modules of {folder.name}/package.json")


def _missing(what: str) -> NoReturn:
    reason = f"needs {what} (make test-tools)"
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)
