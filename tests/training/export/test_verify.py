import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from PIL import Image

from medserve_proto.v1 import manifest_pb2 as pb
from medserve_training.commands.cli import main
from medserve_training.export.manifest import embed, read_manifest


def changed(path: Path, folder: Path, change: Callable[[pb.Manifest], None]) -> str:
    manifest = read_manifest(path)
    change(manifest)
    model = onnx.load(path)
    embed(model, manifest)
    onnx.save(model, folder / "changed.onnx")
    return str(folder / "changed.onnx")


def test_a_model_reproduces_its_own_manifest_without_pytorch(digits_model: Path) -> None:
    code = (
        "import sys; from medserve_training.commands.cli import main; "
        f"code = main(['verify', {str(digits_model)!r}, '--data', 'digits']); "
        "sys.exit(code or 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "All 15 figures are the same" in done.stdout


def test_a_risk_model_reproduces_its_own_manifest(risk_model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", str(risk_model), "--data", "gbsg"]) == 0
    assert "figures are the same to within" in capsys.readouterr().out


def test_a_changed_metric_is_detected(digits_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def polish(manifest: pb.Manifest) -> None:
        manifest.evaluations[0].metrics[1].value += 2e-6

    assert main(["verify", changed(digits_model, tmp_path, polish), "--data", "digits"]) == 1
    assert "1 of 15 figures differ by more than 1e-06" in capsys.readouterr().out


def test_a_missing_or_additional_metric_is_detected(
    digits_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def forget(manifest: pb.Manifest) -> None:
        manifest.evaluations[0].metrics[0].name = "precision"

    assert main(["verify", changed(digits_model, tmp_path, forget), "--data", "digits"]) == 1
    assert "6 of 18 figures differ" in capsys.readouterr().out


def test_evaluate_adds_the_test_split_and_the_file_still_verifies(
    digits_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(digits_model.read_bytes())
    others = tmp_path / "others"
    others.mkdir()
    for label in read_manifest(path).image_classification.labels:
        (others / label).mkdir()
        Image.effect_noise((28, 28), 90).save(others / label / "noise.png")
    arguments = ["--data", "digits", "--runs", str(tmp_path), "--unfamiliar", f"folder:{others}"]
    assert main(["evaluate", str(path), *arguments]) == 0
    before, after = read_manifest(digits_model), read_manifest(path)
    assert [evaluation.split for evaluation in after.evaluations] == ["validation", "test"]
    assert after.evaluations[0] == before.evaluations[0]
    report = tmp_path / "digits"
    predictions = np.load(report / "predictions.npz")
    labels, probabilities = predictions["test_labels"], predictions["test_probabilities"]
    accuracy = next(metric.value for metric in after.evaluations[1].metrics if metric.name == "accuracy")
    assert accuracy == (probabilities.argmax(axis=1) == labels).mean()
    figures = json.loads((report / "evaluation.json").read_text(encoding="utf-8"))
    assert figures["test: accuracy"] == accuracy
    assert figures["novelty warnings: noise"] > 0.9
    assert figures["novelty warnings: test"] < 0.1
    assert figures["novelty warnings: other data"] > 0.5
    capsys.readouterr()
    assert main(["verify", str(path), "--data", "digits"]) == 0
    assert "All 28 figures are the same" in capsys.readouterr().out


def test_another_training_split_is_detected(
    digits_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def reseed(manifest: pb.Manifest) -> None:
        manifest.training.seed = 5

    assert main(["verify", changed(digits_model, tmp_path, reseed), "--data", "digits"]) == 1
    assert "the training split has the SHA-256" in capsys.readouterr().err


def test_a_recipe_that_is_not_packaged_must_be_given(
    digits_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def rename(manifest: pb.Manifest) -> None:
        manifest.training.recipe = "mine"

    path = changed(digits_model, tmp_path, rename)
    assert main(["verify", path, "--data", "digits"]) == 1
    assert "was trained with the recipe 'mine'; specify that recipe's file with --recipe" in capsys.readouterr().err
    assert main(["verify", path, "--data", "digits", "--recipe", "digits"]) == 0


@pytest.mark.parametrize(
    ("content", "message"),
    [(None, "is missing"), (b"no model", "is not an ONNX file"), (b"", "has no medserve.manifest")],
)
def test_a_file_that_is_not_a_model_is_rejected(
    content: bytes | None, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "model.onnx"
    if content is not None:
        path.write_bytes(content)
    assert main(["verify", str(path), "--data", "digits"]) == 1
    assert message in capsys.readouterr().err


def test_a_manifest_of_an_unknown_version_is_rejected(
    digits_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def renumber(manifest: pb.Manifest) -> None:
        manifest.schema_version = 9

    assert main(["verify", changed(digits_model, tmp_path, renumber), "--data", "digits"]) == 1
    assert "schema version 9, expected 1" in capsys.readouterr().err


@pytest.mark.parametrize(("model", "data"), [("chest-xray", "medmnist:pneumoniamnist"), ("breast-cancer-risk", "gbsg")])
def test_the_committed_models_reproduce_their_manifests(
    model: str, data: str, request: pytest.FixtureRequest, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = request.getfixturevalue("pneumonia_folder") if data.startswith("medmnist") else Path()
    path = Path(__file__).parents[3] / "models" / model / "1" / "model.onnx"
    assert main(["verify", str(path), "--data", data, "--data-dir", str(folder)]) == 0
    assert "figures are the same" in capsys.readouterr().out
