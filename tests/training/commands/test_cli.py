import json
import subprocess
import sys
from pathlib import Path

import onnx
import pytest

from medserve_training.commands.cli import main
from medserve_training.export.manifest import read_manifest
from samples.made_up_data import SMALL_NETWORK, write_pictures


def test_fit_writes_model_and_report_to_the_given_folders(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    title = "Digits [/all] :heart: [bold]"  # neither markup nor an emoji code
    arguments = ["fit", "digits", *SMALL_NETWORK, "--accelerator", "cpu", "--set", f"manifest.title={title}"]
    folder = tmp_path / "my models" / "x" / "2"
    folder.mkdir(parents=True)
    (folder / "card.md").write_text("of the model that was here before", encoding="utf-8")
    assert main([*arguments, "--output", str(folder), "--runs", str(tmp_path / "runs")]) == 0
    assert [path.name for path in folder.iterdir()] == ["model.onnx"]
    assert (tmp_path / "runs" / "digits" / "metrics.json").is_file()
    printed = capsys.readouterr().out
    assert "validation: accuracy" in printed
    assert title in printed
    assert printed.splitlines()[-1] == f"Serve it with: medserve-server --models '{folder.parent.parent}'"


@pytest.mark.parametrize("folder", ["k/x", "k/0", "k/01", "k/1.5", "k/1/model.onnx", "k k/1", "-k/1", ".", "/1"])
@pytest.mark.parametrize("command", [["fit", "digits"], ["quantize", "model.onnx", "--data", "digits"]])
def test_an_output_that_no_server_would_find_is_rejected_immediately(
    command: list[str],
    folder: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as stopped:
        main([*command, f"--output={folder}"])
    assert stopped.value.code == 2
    assert f"argument --output: {folder!r}: a server would not find" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def weights(path: Path) -> list[bytes]:
    return [entry.raw_data for entry in onnx.load(path).graph.initializer]


def test_repeat_trains_each_seed_once_and_reports_mean_and_spread(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _, recipe = write_pictures(tmp_path, [14, 14])
    runs = tmp_path / "runs"
    arguments = ["repeat", str(recipe), *SMALL_NETWORK, "--seeds", "2", "--runs", str(runs)]
    assert main(arguments) == 0
    folder = runs / "digits-seeds"
    figures = json.loads((folder / "seeds.json").read_text(encoding="utf-8"))["figures"]
    first, second = figures["test: accuracy"]
    assert f"{(first + second) / 2:.4f}" in capsys.readouterr().out
    models = [folder / f"seed-{seed}" / "model.onnx" for seed in (1, 2)]
    assert [read_manifest(model).training.seed for model in models] == [1, 2]
    assert weights(models[0]) != weights(models[1])
    assert main(arguments) == 0
    assert "is trained" not in capsys.readouterr().out
    assert json.loads((folder / "seeds.json").read_text(encoding="utf-8"))["figures"] == figures


def test_a_user_error_is_one_message_and_exit_status_1(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "medserve_training", "fit", "digits", "--set", "training.epoch=1"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 1
    expected = ["medserve-train: recipe digits:", "  training.epoch: no such key; remove it or correct its spelling"]
    assert done.stderr.splitlines() == expected
    assert not list(tmp_path.iterdir())


def test_an_error_prints_a_path_unchanged(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "[/x]:skull:.toml"
    assert main(["fit", str(path)]) == 1
    assert str(path) in capsys.readouterr().err


def test_an_unavailable_accelerator_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fit", "digits", "--accelerator", "abacus", "--output", str(tmp_path / "1")]) == 1
    error = capsys.readouterr().err
    assert error.startswith("medserve-train: --accelerator abacus, --devices 1: ")
    assert error.count("\n") == 1


@pytest.mark.parametrize("arguments", [["article-risk", "--splits", "0"], ["fit", "digits", "--devices", "0"]])
def test_a_number_below_one_is_rejected(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    assert stopped.value.code == 2
    assert "0 is below 1" in capsys.readouterr().err


def test_the_error_about_missing_data_gives_advice(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fit", "chest-xray", "--data-dir", str(tmp_path)]) == 1
    assert "pneumoniamnist.npz is missing" in capsys.readouterr().err.replace("\n", " ")


def test_article_risk_reports_the_spread(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["article-risk", "--splits", "2", "--output", str(tmp_path)]) == 0
    found = json.loads((tmp_path / "article_risk.json").read_text(encoding="utf-8"))
    assert len(found["auc_by_split"]) == found["splits"] == 2
    assert 0.5 < found["auc"]["minimum"] <= found["auc"]["mean"] <= found["auc"]["maximum"] < 0.85
    assert found["auc_of_minus_follow_up_time"]["mean"] > 0.6
    for name in ("status_projection", "logistic_regression", "random_forest"):
        assert 0.5 < found[f"auc_of_{name}"]["mean"] < 0.85
    for pair in found["status_projection_minus"].values():
        assert pair["low"] < pair["mean"] < pair["high"]
    assert (tmp_path / "article_risk.png").is_file()
    assert "0.717" in capsys.readouterr().out
