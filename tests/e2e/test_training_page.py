"""Runs docs/training.md from top to bottom: it writes files, trains, serves and calls models."""

import os
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

import pytest

from servers.server_process import REPOSITORY, environment, running_server

PAGE = REPOSITORY / "docs" / "training.md"
_FENCE = re.compile(r'^```(\w*)(?: title="([^"]+)")?\n(.*?)^```$', re.MULTILINE | re.DOTALL)


class Block(NamedTuple):
    language: str
    title: str | None
    text: str


class Page:
    """Executes the page's blocks one after the other in a folder."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self.folder = folder
        self.output = ""
        self._stack = stack
        self._servers = stack.enter_context(ExitStack())
        # The commands of this environment, as a reader has them, and one thread per process.
        commands = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        self._environment = {**environment(), "PATH": commands, "OMP_NUM_THREADS": "1"}

    def run(self, block: Block) -> None:
        match block:
            case Block(_, str(title), text):
                (self.folder / title).write_text(text, encoding="utf-8")
            case Block("python", None, text):
                self._execute(sys.executable, "-W", "error", "-c", text)
            case Block("sh", None, text) if text.startswith("medserve-server"):
                self._serve(shlex.split(text))
            case Block("sh", None, text):
                self._execute("bash", "-euo", "pipefail", "-c", text)
            case Block("toml", None, text):
                tomllib.loads(text)
            case Block("text", None, text):
                assert self.output == text
            case _:
                pytest.fail(f"docs/training.md: blocks of {block.language!r} are not supported by the tests")

    def _execute(self, *command: str) -> None:
        done = subprocess.run(
            command, cwd=self.folder, env=self._environment, capture_output=True, text=True, timeout=300, check=False
        )
        assert done.returncode == 0, f"{command[-1]}\n{done.stdout}\n{done.stderr}"
        self.output = done.stdout

    def _serve(self, command: list[str]) -> None:
        """Starts the server as the page does, but on a free port, after stopping the previous one."""
        assert command[:2] == ["medserve-server", "--models"]
        self._servers.close()
        server = self._servers.enter_context(running_server("--models", str(self.folder / command[2]), *command[3:]))
        self._environment["MEDSERVE_SERVER"] = server.target


@pytest.fixture
def page(tmp_path: Path) -> Iterator[Page]:
    with ExitStack() as stack:
        yield Page(tmp_path, stack)


@pytest.mark.timeout(900)
def test_page_runs_from_top_to_bottom(page: Page) -> None:
    blocks = [Block(language, title or None, text) for language, title, text in _FENCE.findall(PAGE.read_text("utf-8"))]
    outputs = {}
    for block in blocks:
        page.run(block)
        if block.text.startswith(("medserve ", "python ")):
            outputs[block.text.split()[1]] = page.output
    header, first, second = outputs["risk"].splitlines()
    assert header.startswith("age,grade,positive_nodes,progesterone_receptor,risk_1_year,risk_3_years,risk_5_years")
    assert first.startswith("45,II,2,60,0.")
    assert "progesterone_receptor" in second.removeprefix("61,III,11,,0.")  # the warning that it was imputed
    assert "three" in outputs["classify"]
    assert "cell" in outputs["segment"]
    assert len((page.folder / "objects.csv").read_text(encoding="utf-8").splitlines()) > 4
    comparison = outputs["compare_versions.py"]
    for line in (r"largest change of a probability: 0\.\d{3}", r"version [12]: \d+ of 357 decisions are correct"):
        assert re.search(line, comparison), comparison
    for name, split in (("patients", "patients.csv"), ("numbers", "numbers"), ("cells", "cells")):
        assert split in (page.folder / f"models/{name}/1/card.md").read_text(encoding="utf-8")
        assert (page.folder / f"runs/{name}/evaluation.json").is_file()
