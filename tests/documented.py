"""Runs the fenced code blocks of README.md and docs/ as a reader would."""

import os
import pty
import re
import shlex
import shutil
import sys
import termios
from collections import Counter
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import NamedTuple

from processes import started
from servers.server_process import REPOSITORY, command, environment, running_server
from waiting import PATIENCE

PAGES = ["README.md", *sorted(str(path.relative_to(REPOSITORY)) for path in REPOSITORY.glob("docs/*.md"))]
_FENCE = re.compile(r'^( *)```(\w*)(?: title="([^"]+)")?\n(.*?)^ *```$', re.MULTILINE | re.DOTALL)
_STYLE = re.compile(r"\x1b\[[0-9;]*m")
_ADDRESS = re.compile(r"(?:127\.0\.0\.1|localhost|medserve):8001")


class Block(NamedTuple):
    page: str
    language: str
    title: str
    """Name of the file that the reader writes; empty otherwise."""
    text: str


def blocks(page: str, heading: str = "") -> list[Block]:
    """Returns the fenced blocks of a page, or those below one of its headings, in order."""
    text = (REPOSITORY / page).read_text("utf-8")
    if heading:
        _, found, below = text.partition(f"\n## {heading}\n")
        assert found, f"{page} has no heading {heading!r}"
        text = below.partition("\n## ")[0]
    fences = _FENCE.findall(text)
    return [
        Block(page, language, title, re.sub(f"^{indent}", "", text, flags=re.MULTILINE))
        for indent, language, title, text in fences
    ]


def shape(output: str) -> Counter[str]:
    """Returns the words of an output regardless of table layout, with 0 for every digit and singular "thread"."""
    words = re.sub(r"[━┏┳┓┃┡╇┩│└┴┘─]", " ", output).replace("threads", "thread").split()
    return Counter(re.sub(r"\d+", "0", word) for word in words)


class Reader:
    """Executes a page's commands at a terminal, in a folder with the content of a checkout."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self.folder = folder
        self.output, self.errors = "", ""
        terminal = {"TERM": "xterm", "COLUMNS": "120", "LINES": "50"}
        self.environment = environment() | terminal | {"PATH": f"{folder}/.venv/bin:{os.environ['PATH']}"}
        self._session = ""
        self._stack = stack
        self.address = ""
        for name in (".venv", ".venv-dev"):
            (folder / name).symlink_to(sys.prefix)
        (folder / "proto").symlink_to(REPOSITORY / "proto")
        shutil.copytree(REPOSITORY / "models", folder / "models")

    def serve(self, *flags: str) -> None:
        """Starts a server on a free port, which replaces 8001 in the following commands."""
        server = self._stack.enter_context(running_server(*flags, folder=self.folder))
        self.address = f"127.0.0.1:{server.target.rpartition(':')[2]}"
        self.environment["MEDSERVE_SERVER"] = self.address

    def run(self, block: Block) -> list[int]:
        """Executes a block and returns the exit statuses of the commands that failed."""
        if block.title:
            path = self.folder / block.title
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(self.addressed(block.text), "utf-8")
            return []
        if block.language == "python":
            # As in one session: a block may use the definitions of earlier blocks of the page.
            self._session += block.text
            return self.execute(sys.executable, "-W", "error", "-c", self.addressed(self._session))
        if block.text.startswith("make serve"):  # the other command of its block is `make test`
            self.execute(*command(), until="Ctrl-C")
            self.serve()
            return []
        if block.text.startswith("medserve-server --"):
            self.serve(*shlex.split(block.text)[1:])
            return []
        return self.shell(block.text)

    def shell(self, script: str) -> list[int]:
        """Runs commands one after the other, regardless of their exit statuses."""
        failed = self.folder / "failed"
        failed.write_text("")
        trap = f"set -uo pipefail; trap 'echo $? >> {shlex.quote(str(failed))}' ERR\n"
        self.execute("bash", "-c", trap + self.addressed(script))
        return [int(line) for line in failed.read_text().split()]

    def execute(self, *arguments: str, until: str = "") -> list[int]:
        """Runs a program in a terminal of 120 columns until it exits or writes a line with this prefix."""
        ours, theirs = pty.openpty()
        termios.tcsetwinsize(theirs, (50, 120))
        with (
            (self.folder / "errors").open("w+") as errors,
            started(arguments, cwd=self.folder, env=self.environment, stdout=theirs, stderr=errors) as process,
        ):
            os.close(theirs)
            written = b""
            with suppress(OSError):  # EIO once the other side is closed
                while chunk := os.read(ours, 65536):
                    written += chunk
                    if until and (found := re.search(rf"^{until}.*\n".encode(), written, re.MULTILINE)):
                        written = written[: found.end()]
                        process.terminate()
                        break
            process.wait(PATIENCE)
            os.close(ours)
            errors.seek(0)
            self.errors = errors.read()
        self.output = _STYLE.sub("", written.decode()).replace("\r\n", "\n")
        return [process.returncode] if process.returncode else []

    def addressed(self, text: str) -> str:
        """Returns a block's text with the address and the sockets of the running server."""
        text = text.replace("/tmp/medserve-", f"{os.environ.get('TMPDIR', '/tmp')}/medserve-")  # noqa: S108
        return _ADDRESS.sub(self.address, text) if self.address else text
