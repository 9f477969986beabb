"""Runs the commands that a view shows for its request."""

import os
import subprocess
import sys
from pathlib import Path

from programs import program
from waiting import PATIENCE
from web.browser import Locator


def run_shown(details: Locator, language: str, folder: Path, **variables: str) -> str:
    """Runs a command as pasted into a terminal, and returns its standard output.

    Args:
        details: the element with the commands; it is opened if it is closed.
        language: name of the tab: medserve, curl, Python or Node.
        folder: working directory, with the files that the command names.
        variables: additional environment variables.
    """
    if details.get_attribute("open") is None:
        details.locator("summary").click()
    details.get_by_role("tab", name=language).click()
    text = details.get_by_role("tabpanel").locator("pre").inner_text()
    environment = {key: value for key, value in os.environ.items() if not key.lower().endswith("_proxy")} | variables
    environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{environment['PATH']}"  # has the command medserve
    ended = subprocess.run(
        [*_interpreter(language), text],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert ended.returncode == 0, f"{text}\n{ended.stderr}"
    return ended.stdout


def _interpreter(language: str) -> list[str]:
    if language == "Python":
        return [sys.executable, "-W", "error", "-c"]
    if language == "Node":
        return [program("node", "nodejs"), "--input-type=module", "-e"]
    if language == "curl":
        program("curl", "curl")
    return [program("bash", "bash"), "-c"]
