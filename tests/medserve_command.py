"""Runs the commands as a user runs them: each in a process of its own."""

import os
import subprocess
import sys
from pathlib import Path

MODULES = {
    "medserve": "medserve_client.cli",
    "medserve-server": "medserve_server",
    "medserve-train": "medserve_training.cli",
}
"""What `python -m` runs for each command."""


def run(
    name: str, *arguments: str | bytes | Path, stdin: bytes = b"", **environment: str
) -> subprocess.CompletedProcess[str]:
    """Runs a command to its end, with UTF-8 on its outputs unless the environment says otherwise."""
    found = {key: value for key, value in os.environ.items() if not key.startswith("MEDSERVE_")}
    done = subprocess.run(
        [sys.executable, "-m", MODULES[name], *arguments],
        input=stdin,
        capture_output=True,
        check=False,
        env=found | {"PYTHONIOENCODING": "utf-8"} | environment,
    )
    return subprocess.CompletedProcess(done.args, done.returncode, done.stdout.decode(), done.stderr.decode())
