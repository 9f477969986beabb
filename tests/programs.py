"""Programs that tests compare with, and that a user's machine may lack."""

import os
import shutil

import pytest


def program(name: str, package: str) -> str:
    """The path of a program; without it the test skips, except in CI, where `make test-tools` has installed it."""
    if (path := shutil.which(name)) is not None:
        return path
    reason = f"needs {name}, from Debian's package {package} (make test-tools)"
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)
