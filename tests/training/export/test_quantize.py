import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from sklearn.metrics import roc_auc_score

from medserve_training.commands.cli import main
from medserve_training.data.image_data import load_images
from medserve_training.data.splits import Images, Splits
from medserve_training.errors import UserError
from medserve_training.export.inference import open_session, predict
from medserve_training.export.manifest import embed, read_manifest
from medserve_training.export.measure_images import validation_metric
from medserve_training.export.quantization.convert import keep_the_first_convolution
from medserve_training.export.quantization.original import calibration_pictures
from medserve_training.export.reference import reference_deviation, reference_input
from medserve_training.export.speed import speedup
from medserve_training.recipes.recipe import ImageTask, load_recipe

Fit = Callable[..., Path]

CHEST_XRAY = Path(__file__).parents[3] / "models" / "chest-xray" / "1" / "model.onnx"


@pytest.fixture(scope="module")
def int8_model(digits_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    source = folder / "digits" / "1" / "model.onnx"
    source.parent.mkdir(parents=True)
    source.write_bytes(digits_model.read_bytes())
    assert main(["quantize", str(source), "--data", "digits", "--rows", "128"]) == 0
    return folder / "digits-int8" / "1" / "model.onnx"


@pytest.fixture(scope="module")
def digits() -> Splits[Images]:
    recipe = load_recipe("digits")
    assert isinstance(recipe.task, ImageTask)
    return load_images(recipe, recipe.task, Path())


def test_inputs_and_outputs_stay_and_later_convolutions_use_integers(digits_model: Path, int8_model: Path) -> None:
    assert [entry.name for entry in int8_model.parent.iterdir()] == ["model.onnx"]
    source, model = onnx.load(digits_model), onnx.load(int8_model)
    onnx.checker.check_model(model, full_check=True)
    assert list(model.graph.input) == list(source.graph.input)
    assert list(model.graph.output) == list(source.graph.output)
    assert [(entry.domain, entry.version) for entry in model.opset_import] == [("", 18)]
    assert [entry.key for entry in model.metadata_props] == ["medserve.manifest"]
    makers = {node.output[0]: node.op_type for node in model.graph.node}
    takes = [[makers.get(name) for name in node.input[:2]] for node in model.graph.node if node.op_type == "Conv"]
    assert takes == [["Div", None], ["DequantizeLinear"] * 2, ["DequantizeLinear"] * 2]
    kinds = {entry.data_type for entry in model.graph.initializer if len(entry.dims) == 4}
    assert kinds == {onnx.TensorProto.FLOAT, onnx.TensorProto.INT8}
    assert int8_model.stat().st_size < 0.8 * digits_model.stat().st_size


def test_the_manifest_equals_the_sources_except_for_the_changes(digits_model: Path, int8_model: Path) -> None:
    source, manifest = read_manifest(digits_model), read_manifest(int8_model)
    assert manifest.name == "digits-int8"
    assert manifest.quantization.source_sha256 == hashlib.sha256(digits_model.read_bytes()).hexdigest()
    assert "on 128 training and 64 made-up rows" in manifest.quantization.method
    assert manifest.quantization.speedup > 0
    assert manifest.quantization.speedup_batch == 32
    manifest.name = source.name
    manifest.ClearField("quantization")
    for each in (manifest, source):
        del each.evaluations[:]
        each.image_classification.ClearField("novelty")
    assert manifest == source


def test_loss_and_deviation_are_measured_on_validation(
    digits_model: Path, int8_model: Path, digits: Splits[Images]
) -> None:
    stated = read_manifest(int8_model).quantization
    before, after = (predict(open_session(path), digits.validation.pixels) for path in (digits_model, int8_model))
    for output, value in ((before, stated.metric_before), (after, stated.metric_after)):
        assert roc_auc_score(digits.validation.labels, output, multi_class="ovr") == pytest.approx(value, abs=1e-9)
    assert stated.metric == "auroc_macro"
    assert stated.metric_before - stated.metric_after <= 0.002
    assert stated.max_deviation == pytest.approx(np.abs(before - after).max())
    assert 0 < stated.max_deviation < 0.1
    assert validation_metric(read_manifest(int8_model), "auroc_macro") == stated.metric_after


def test_a_variant_reproduces_its_own_manifest(int8_model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", str(int8_model), "--data", "digits"]) == 0
    assert "All 16 figures are the same" in capsys.readouterr().out


def test_an_altered_loss_is_detected(int8_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model, manifest = onnx.load(int8_model), read_manifest(int8_model)
    manifest.quantization.metric_after += 1e-5
    embed(model, manifest)
    onnx.save(model, tmp_path / "model.onnx")
    assert main(["verify", str(tmp_path / "model.onnx"), "--data", "digits"]) == 1
    assert "1 of 16 figures differ" in capsys.readouterr().out


@pytest.mark.parametrize("size", [1, 3, 64])
def test_a_rows_result_does_not_depend_on_its_batch(size: int, int8_model: Path, digits: Splits[Images]) -> None:
    session, rows = open_session(int8_model), digits.test.pixels[:64]
    np.testing.assert_allclose(predict(session, rows, batch_size=size), predict(session, rows), atol=1e-6)


def test_a_loss_above_the_limit_writes_no_file(
    digits_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["quantize", str(digits_model), "--data", "digits", "--rows", "32", "--max-loss=-1"]
    assert main([*arguments, "--output", str(tmp_path / "1")]) == 1
    message = capsys.readouterr().err
    assert "auroc_macro on validation falls from" in message
    assert "was not written" in message
    assert not list(tmp_path.iterdir())


def test_models_that_gain_nothing_or_do_not_match_are_rejected(
    digits_model: Path, risk_model: Path, int8_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def refused(path: Path, data: str, message: str) -> bool:
        code = main(["quantize", str(path), "--data", data, "--output", str(tmp_path / "1")])
        return code == 1 and message in capsys.readouterr().err

    assert refused(risk_model, "gbsg", "is a patient-risk model: its layers are so small")
    assert refused(int8_model, "digits", "is already quantized; start from the file from which it was made")
    assert refused(tmp_path / "none.onnx", "digits", "is missing")
    for change, message in (("reference", "has no reference rows"), ("seed", "the training split has the SHA-256")):
        model, manifest = onnx.load(digits_model), read_manifest(digits_model)
        manifest.training.seed += change == "seed"
        if change == "reference":
            manifest.ClearField("reference")
        embed(model, manifest)
        onnx.save(model, tmp_path / f"{change}.onnx")
        assert refused(tmp_path / f"{change}.onnx", "digits", message)
    assert not (tmp_path / "model").exists()


def test_first_convolutions_and_squeeze_and_excitation_of_an_ensemble_stay_float() -> None:
    model = onnx.load(CHEST_XRAY)
    nodes = {node.name: node for node in model.graph.node}
    shapes = {entry.name: tuple(entry.dims) for entry in model.graph.initializer}
    kept = [nodes[name] for name in keep_the_first_convolution(model.graph)]
    weights = [shapes[node.input[1]] for node in kept if node.op_type == "Conv"]
    members = read_manifest(CHEST_XRAY).image_classification.members
    assert sum(shape[1] == 1 for shape in weights) == members
    assert sum(shape[2:] == (1, 1) for shape in weights) == 2 * members
    assert len(weights) == 3 * members


def test_keeping_the_first_convolution_changes_no_result(digits_model: Path, digits: Splits[Images]) -> None:
    model = onnx.load(digits_model)
    kept = keep_the_first_convolution(model.graph)
    nodes = {node.name: node.op_type for node in model.graph.node}
    assert [nodes[name] for name in kept] == ["Conv", "MaxPool", "Relu"]
    onnx.checker.check_model(model, full_check=True)
    rows = digits.test.pixels[:100]
    expected = predict(open_session(digits_model), rows)
    np.testing.assert_array_equal(predict(open_session(model.SerializeToString()), rows), expected)


def test_a_graph_with_one_convolution_is_rejected(fit_into: Fit, tmp_path: Path) -> None:
    model = fit_into(tmp_path, "article-survival", "training.epochs=1")
    with pytest.raises(UserError, match=r"too few convolutions \(1\)"):
        keep_the_first_convolution(onnx.load(model).graph)


def test_calibration_uses_training_images_by_seed_and_synthetic_ones() -> None:
    train = np.random.default_rng(0).integers(0, 256, (50, 18, 18, 1), dtype=np.uint8)
    first, again, other = (calibration_pictures(train, 20, seed) for seed in (1, 1, 2))
    assert first.shape == (20 + 64, 18, 18, 1)
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()
    known = {picture.tobytes() for picture in train}
    assert len({picture.tobytes() for picture in first[:20]} & known) == 20
    assert len(calibration_pictures(train, 1000, 1)) == 50 + 64


def test_a_model_is_as_fast_as_itself(digits_model: Path, digits: Splits[Images]) -> None:
    content = digits_model.read_bytes()
    assert 0.5 < speedup(content, content, digits.train.pixels[:8]) < 2


def test_the_committed_chest_xray_model_can_be_quantized(
    pneumonia_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = ["--data", "medmnist:pneumoniamnist", "--data-dir", str(pneumonia_folder)]
    assert main(["quantize", str(CHEST_XRAY), *data, "--rows", "128", "--output", str(tmp_path / "1")]) == 0
    path = tmp_path / "1" / "model.onnx"
    manifest = read_manifest(path)
    assert manifest.quantization.metric == "auroc"
    assert manifest.quantization.max_deviation < 0.15
    assert reference_deviation(manifest, predict(open_session(path), reference_input(manifest))) < 0.1
    assert main(["verify", str(path), *data]) == 0
    assert "speed-up at batch 32, one core" in capsys.readouterr().out
