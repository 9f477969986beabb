"""Runs the commands in separate processes, as a user does."""

import fcntl
import os
import pty
import struct
import subprocess
import sys
import termios
from pathlib import Path

MODULES = {
    "medserve": "medserve_client.cli",
    "medserve-server": "medserve_server",
    "medserve-train": "medserve_training",
}
"""The module that `python -m` runs for each command."""


def run(
    name: str, *arguments: str | bytes | Path, stdin: bytes = b"", **environment: str
) -> subprocess.CompletedProcess[str]:
    """Runs a command to completion, with UTF-8 output unless the environment overrides it."""
    found = {key: value for key, value in os.environ.items() if not key.startswith("MEDSERVE_")}
    done = subprocess.run(
        [sys.executable, "-m", MODULES[name], *arguments],
        input=stdin,
        capture_output=True,
        check=False,
        env=found | {"PYTHONIOENCODING": "utf-8"} | environment,
    )
    return subprocess.CompletedProcess(done.args, done.returncode, done.stdout.decode(), done.stderr.decode())


def on_terminal(columns: int, name: str, *arguments: str | Path) -> str:
    """Returns the output of a command on a terminal with this many columns."""
    controller, terminal = pty.openpty()
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 50, columns, 0, 0))
    environment = {key: value for key, value in os.environ.items() if key not in {"COLUMNS", "NO_COLOR"}}
    command = [sys.executable, "-m", MODULES[name], *arguments]
    process = subprocess.Popen(command, stdout=terminal, stderr=terminal, env=environment | {"TERM": "xterm"})
    os.close(terminal)
    shown = b""
    try:
        while part := os.read(controller, 4096):
            shown += part
    except OSError:
        pass  # how Linux reports that the other end of a terminal is closed
    os.close(controller)
    process.wait()
    return shown.decode()
