"""Unit tests start no process unless they are marked with `process`, which `make test-fast` excludes."""

import subprocess
from multiprocessing.process import BaseProcess
from typing import NoReturn

import pytest


@pytest.fixture(autouse=True)
def _only_marked_tests_start_a_process(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.node.get_closest_marker("process") is None:
        monkeypatch.setattr(subprocess.Popen, "__init__", _refuse)
        monkeypatch.setattr(BaseProcess, "start", _refuse)


def _refuse(*_: object, **__: object) -> NoReturn:
    pytest.fail("an unmarked unit test starts a process: mark it with pytest.mark.process")
