"""Runs every snippet of docs/rest.md, and the curl commands of README.md."""

import json
import re
import subprocess
from pathlib import Path

import pytest
from PIL import Image

from programs import program
from servers.server_process import REPOSITORY, ServerProcess
from waiting import PATIENCE

SNIPPETS = [
    *re.findall(r"^```sh\n(.+?)^```", (REPOSITORY / "docs/rest.md").read_text(), re.MULTILINE | re.DOTALL),
    *re.findall(r"^curl .+localhost:8001.+$", (REPOSITORY / "README.md").read_text(), re.MULTILINE),
]


@pytest.mark.parametrize("snippet", SNIPPETS, ids=range(len(SNIPPETS)))
def test_snippet_runs(rest_server: ServerProcess, snippet: str, tmp_path: Path) -> None:
    program("curl", "curl")
    Image.new("L", (28, 28), 99).save(tmp_path / "picture.png")
    assert "localhost:8001" in snippet, "the snippet uses the default port"
    script = snippet.replace("localhost:8001", rest_server.http_url.removeprefix("http://"))
    ended = subprocess.run(
        ["bash", "-ec", script.replace("curl ", "curl --silent --show-error --fail-with-body ", 1)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "error" not in json.loads(ended.stdout)
