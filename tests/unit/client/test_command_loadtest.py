"""The command medserve loadtest, run as a user runs it, against a small server."""

import json
from pathlib import Path

import pytest

from medserve_client.cli import main

pytestmark = pytest.mark.process  # a load is made by processes of their own

Captured = pytest.CaptureFixture[str]
SHORT = ("--duration", "0.6", "--warmup", "0.1", "--metrics-url", "http://127.0.0.1:1/metrics")


def test_results_are_printed_and_written(clinic: str, tmp_path: Path, capsys: Captured) -> None:
    path = tmp_path / "run.json"
    arguments = ["--concurrency", "4", "--batch", "3", "--connections", "2", "--json", str(path)]
    assert main(["--server", clinic, "loadtest", *SHORT, *arguments]) == 0
    captured = capsys.readouterr()
    for words in ("lungs, version 1", "3 per request", "4 in flight", "latency p99.9", "items/s"):
        assert words in captured.out
    assert "no metrics at http://127.0.0.1:1/metrics" in captured.err
    whole = json.loads(path.read_text())
    (run,) = whole.pop("runs")
    assert whole == {
        "target": clinic,
        "model": "lungs",
        "version": "1",
        "protocol": "grpc",
        "tls": False,
        "mode": "unary",
        "batch": 3,
        "connections": 2,
        "processes": 1,
        "seed": 0,
        "knee": None,
    }
    assert (run["rate"], run["concurrency"], run["duration_s"], run["warmup_s"]) == (None, 4, 0.6, 0.1)
    assert (run["errors"], run["server"]) == ({}, None)
    assert run["items_per_s"] == pytest.approx(3 * run["requests_per_s"])
    latency = run["latency_ms"]
    assert list(latency) == ["mean", "p50", "p90", "p99", "p99.9", "max"]
    assert 0 < latency["p50"] <= latency["p90"] <= latency["p99"] <= latency["p99.9"] <= latency["max"]


def test_a_sweep_finds_and_plots_the_knee(clinic: str, tmp_path: Path, capsys: Captured) -> None:
    table, picture = tmp_path / "sweep.json", tmp_path / "sweep.png"
    arguments = ["--sweep", "20:80:3", "--objective-ms", "10000", "--json", str(table), "--plot", str(picture)]
    assert main(["--server", clinic, "loadtest", *SHORT, *arguments, "--model", "relapse"]) == 0
    whole = json.loads(table.read_text())
    assert [run["rate"] for run in whole["runs"]] == pytest.approx([20, 40, 80])
    assert whole["knee"] in [None, *(run["rate"] for run in whole["runs"])]
    assert ("Knee: " in capsys.readouterr().out) == (whole["knee"] is not None)
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_an_unreachable_objective_has_no_knee(clinic: str, capsys: Captured) -> None:
    assert main(["--server", clinic, "loadtest", *SHORT, "--sweep", "20:40:2", "--objective-ms", "0.001"]) == 0
    assert "Knee: none (at least 95% of the offered rate achieved, and p99 at most 0.001 ms)" in capsys.readouterr().out


def test_failures_are_reported_by_status(clinic: str, tmp_path: Path, capsys: Captured) -> None:
    """The first file is tried beforehand; this server refuses the second one."""
    files = [tmp_path / "fine.png", tmp_path / "spoilt.png"]
    for file, content in zip(files, (b"fine", b"bad"), strict=True):
        file.write_bytes(content)
    for mode in ("unary", "stream"):
        arguments = ["--images", *map(str, files), "--concurrency", "2", "--mode", mode]
        assert main(["--server", clinic, "loadtest", *SHORT, *arguments]) == 1
        assert "failed: INVALID_ARGUMENT" in capsys.readouterr().out


def test_patients_may_come_from_a_file(clinic: str, tmp_path: Path, capsys: Captured) -> None:
    path = tmp_path / "patients.csv"
    path.write_text("id,age,grade\na,40,I\nb,50,\n")
    assert main(["--server", clinic, "loadtest", *SHORT, "--patients", str(path), "--batch", "3"]) == 0
    assert "relapse, version 1" in capsys.readouterr().out
    path.write_text("id,age,grade\na,40,I\nb,old,\n")
    assert main(["--server", clinic, "loadtest", *SHORT, "--patients", str(path)]) == 2
    assert f"{path}:3: column age: 'old' is not a number" in capsys.readouterr().err


def test_a_rejected_request_is_reported_before_the_load_starts(clinic: str, tmp_path: Path, capsys: Captured) -> None:
    path = tmp_path / "spoilt.png"
    path.write_bytes(b"bad")
    assert main(["--server", clinic, "loadtest", "--images", str(path)]) == 4
    assert "not a PNG, JPEG or TIFF file" in capsys.readouterr().err
    assert main(["--server", clinic, "loadtest", "--model", "liver"]) == 4
    assert main(["--server", "127.0.0.1:1", "loadtest"]) == 3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--concurrency", "1", "--connections", "2"], "--connections is 2; expected at most concurrency (1)"),
        (["--rate", "9", "--processes", "2", "--connections", "1"], "--processes is 2; expected from 1 to"),
        (["--images", "nowhere.png"], "--images nowhere.png: cannot be read"),
        (["--json", "nowhere/run.json"], "nowhere/run.json: cannot be written: there is no folder nowhere"),
    ],
)
def test_incompatible_options_are_rejected(clinic: str, arguments: list[str], message: str, capsys: Captured) -> None:
    assert main(["--server", clinic, "loadtest", *SHORT, *arguments]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments",
    [
        ["--rate", "1", "--concurrency", "1"],
        ["--rate", "0"],
        ["--rate", "inf"],
        ["--duration", "0"],
        ["--warmup", "-1"],
        ["--batch", "0"],
        ["--sweep", "1:2"],
        ["--sweep", "2:1:5"],
        ["--sweep", "1:2:1"],
        ["--mode", "telepathy"],
    ],
)
def test_an_invalid_option_is_rejected(arguments: list[str], capsys: Captured) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["loadtest", *arguments])
    assert caught.value.code == 2
    assert arguments[0] in capsys.readouterr().err.splitlines()[-1]


def test_a_plot_without_matplotlib_names_the_extra(
    clinic: str, monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    monkeypatch.setattr("medserve_client.cli.loadtest.report.find_spec", lambda _: None)
    assert main(["--server", clinic, "loadtest", "--plot", "run.png"]) == 2
    assert "--plot needs the extra loadtest: pip install '.[loadtest]'" in capsys.readouterr().err
