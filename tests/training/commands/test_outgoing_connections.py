"""Training opens no network connections unless configured to."""

import os
import sys
from pathlib import Path

import pytest

from network_watch import NetworkWatch
from processes import started
from waiting import PATIENCE


def test_training_opens_no_connections(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    watch = NetworkWatch(tmp_path, monkeypatch)
    code = (
        "import os, sys, medserve_training.commands.cli as cli\n"
        "assert os.environ['ORT_DISABLE_TELEMETRY'] == '1'\n"
        "sys.exit(cli.main(sys.argv[1:]))"
    )
    arguments = [
        "fit",
        "digits",
        "--set",
        "training.epochs=1",
        "--set",
        "network.widths=[2, 2, 2]",
        "--accelerator",
        "cpu",
    ]
    places = ["--output", str(tmp_path / "model" / "1"), "--runs", str(tmp_path / "runs")]
    command = [sys.executable, "-c", code, *arguments, *places]
    with (
        (tmp_path / "log").open("w") as log,
        started(command, stdout=log, stderr=log, env=os.environ) as process,
        watch.looking_at(process.pid),
    ):
        try:
            assert process.wait(PATIENCE) == 0
        finally:
            process.kill()
    assert (tmp_path / "model/1/model.onnx").is_file()
    assert watch.looks
    assert not watch.strangers
    assert "telemetry" not in (tmp_path / "log").read_text().lower()
