import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from lightning_fabric import Fabric
from numpy.typing import NDArray
from onnxruntime import InferenceSession
from rich.console import Console
from torch import nn
from torch.utils.data import TensorDataset

from medserve_training.data.patient_data import load_patients
from medserve_training.data.splits import Splits
from medserve_training.errors import UserError
from medserve_training.export.inference import open_session, predict
from medserve_training.export.manifest import read_manifest
from medserve_training.export.onnx_file import deviation, to_onnx, write
from medserve_training.networks.images.baseline import baseline_cnn
from medserve_training.networks.images.classifier import ImageClassifier, ImageGraph
from medserve_training.recipes.network_settings import BaselineCnn
from medserve_training.recipes.recipe import load_recipe
from medserve_training.staging import staged
from medserve_training.training.train import train

Fit = Callable[..., Path]


@pytest.fixture(scope="module")
def risk_session(risk_model: Path) -> InferenceSession:
    return open_session(risk_model)


@pytest.fixture(scope="module")
def patients() -> NDArray[np.float32]:
    return load_patients(load_recipe("breast-cancer-risk"))[0].test.features


def test_the_same_seed_and_date_give_the_same_file(
    fit_into: Fit, digits_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another process may have written the other file."""
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "86400")
    torch.manual_seed(99)
    again = fit_into(tmp_path, "digits", "training.epochs=1")
    assert again.read_bytes() == digits_model.read_bytes()
    assert read_manifest(again).training.date == "1970-01-02"


@pytest.mark.parametrize("model", ["digits_model", "risk_model"])
def test_a_file_is_one_clean_self_contained_graph(model: str, request: pytest.FixtureRequest) -> None:
    path: Path = request.getfixturevalue(model)
    assert sorted(entry.name for entry in path.parent.iterdir()) == ["model.onnx", "report"]
    graph = onnx.load(path, load_external_data=False)
    onnx.checker.check_model(graph, full_check=True)
    assert [(entry.domain, entry.version) for entry in graph.opset_import] == [("", 18)]
    assert all(entry.data_location == onnx.TensorProto.DEFAULT for entry in graph.graph.initializer)
    assert [entry.key for entry in graph.metadata_props] == ["medserve.manifest"]
    content = path.read_bytes()
    here = [str(folder).encode() for folder in (Path(__file__).parents[3], Path.home())]
    for foreign in (b"stack_trace", b".py", b"torch.nn", *here):
        assert foreign not in content


def test_the_image_manifest_matches_its_graph(digits_model: Path) -> None:
    session, manifest = open_session(digits_model), read_manifest(digits_model)
    task, (image,), outputs = manifest.image_classification, session.get_inputs(), session.get_outputs()
    probabilities, novelty = outputs
    assert (novelty.name, novelty.type, novelty.shape) == ("novelty", "tensor(float)", ["batch"])
    assert (image.name, image.type, image.shape) == ("image", "tensor(uint8)", ["batch", 28, 28, 1])
    assert (task.input.height, task.input.width, len(task.labels)) == (28, 28, 10)
    assert (probabilities.name, probabilities.type, probabilities.shape) == (
        "probabilities",
        "tensor(float)",
        ["batch", 10],
    )
    assert manifest.name == manifest.training.recipe == "digits"
    assert not task.operating_points
    assert [evaluation.split for evaluation in manifest.evaluations] == ["validation"]
    assert 0 <= manifest.training.export_deviation <= 1e-5


def test_the_risk_manifest_matches_its_graph(risk_model: Path) -> None:
    session, manifest = open_session(risk_model), read_manifest(risk_model)
    task, (features,), outputs = manifest.patient_risk, session.get_inputs(), session.get_outputs()
    assert (features.name, features.type, features.shape) == ("features", "tensor(float)", ["batch", 8])
    assert [(output.name, output.type, output.shape) for output in outputs] == [
        ("survival", "tensor(float)", ["batch", 13]),
        ("member_survival", "tensor(float)", ["batch", 2, 13]),
        ("novelty", "tensor(float)", ["batch"]),
    ]
    assert task.members == 2
    assert task.novelty.threshold > 0
    assert (len(task.features), len(task.curve_times)) == (8, 13)
    assert [feature.name for feature in task.features if feature.required] == ["age", "positive_nodes"]
    assert {horizon.time for horizon in task.horizons} <= set(task.curve_times)
    bounds = [group.risk_below for group in task.risk_groups]
    assert bounds == sorted(bounds)
    assert bounds[-1] > 1
    for feature in task.features:
        if feature.WhichOneof("kind") == "numeric":
            limits = feature.numeric
            assert limits.valid_min <= limits.training_min < limits.training_max <= limits.valid_max


@pytest.mark.parametrize("size", [1, 2, 3, 7, 64])
def test_a_rows_result_does_not_depend_on_its_batch(
    size: int, digits_model: Path, risk_session: InferenceSession, patients: NDArray[np.float32]
) -> None:
    images = np.random.default_rng(0).integers(0, 256, (64, 28, 28, 1), dtype=np.uint8)
    for session, rows in ((open_session(digits_model), images), (risk_session, patients[:64])):
        np.testing.assert_allclose(predict(session, rows, batch_size=size), predict(session, rows), atol=1e-6)


@given(missing=st.sets(st.sampled_from([1, 2, 3, 5, 6, 7])), row=st.integers(0, 102))
def test_a_missing_covariate_is_imputed_as_in_the_manifest(
    risk_model: Path, risk_session: InferenceSession, patients: NDArray[np.float32], missing: set[int], row: int
) -> None:
    features = read_manifest(risk_model).patient_risk.features
    absent, filled = patients[[row]], patients[[row]]
    for index in missing:
        absent[0, index], filled[0, index] = np.nan, features[index].imputed_as
    np.testing.assert_array_equal(predict(risk_session, absent), predict(risk_session, filled))


@pytest.mark.parametrize("required", [0, 4])
def test_a_missing_required_covariate_gives_nan(
    required: int, risk_session: InferenceSession, patients: NDArray[np.float32]
) -> None:
    rows = patients[:3].copy()
    rows[1, required] = np.nan
    survival = predict(risk_session, rows)
    assert np.isnan(survival[1, 1:]).all()
    np.testing.assert_array_equal(survival[[0, 2]], predict(risk_session, patients[[0, 2]]))


number = st.floats(0, 10_000, width=32)


@given(st.lists(st.tuples(*[number] * 8), min_size=1, max_size=20))
def test_survival_starts_at_one_and_is_non_increasing(
    risk_session: InferenceSession, rows: list[tuple[float, ...]]
) -> None:
    survival = predict(risk_session, np.array(rows, dtype=np.float32))
    assert (survival[:, 0] == 1).all()
    assert (np.diff(survival, axis=1) <= 0).all()
    assert (survival >= 0).all()


def test_metrics_and_plots_are_written(digits_model: Path, risk_model: Path) -> None:
    report = json.loads((digits_model.parent / "report" / "metrics.json").read_text(encoding="utf-8"))
    assert report["recipe"]["training"]["epochs"] == len(report["epochs"]) == 1
    assert 0.5 < report["figures"]["validation: accuracy"] < 1
    for model, names in (
        (digits_model, {"loss", "roc", "precision_recall", "confusion", "calibration"}),
        (risk_model, {"loss", "risk_groups", *(f"calibration_{years * 365.25:g}" for years in (1, 3, 5))}),
    ):
        assert {path.stem for path in (model.parent / "report").glob("*.png")} == names


def test_a_graph_that_differs_from_the_network_is_not_written(tmp_path: Path, digits_model: Path) -> None:
    network = baseline_cnn(BaselineCnn("baseline-cnn"), (1, 28, 28), 10)
    model = ImageGraph([ImageClassifier(network, np.zeros(1), np.ones(1))])
    pixels = np.random.default_rng(0).integers(0, 256, (8, 28, 28, 1), dtype=np.uint8)
    graph = to_onnx(model, torch.from_numpy(pixels[:2]), model.names)
    with torch.no_grad():
        next(model.parameters()).mul_(1.01)
    manifest = read_manifest(digits_model)
    output = predict(open_session(graph.SerializeToString()), pixels)
    manifest.training.export_deviation = deviation(model, output, pixels)
    path = tmp_path / "model" / "model.onnx"
    with pytest.raises(UserError, match=r"PyTorch and ONNX Runtime differ by .* was not written"), staged() as stage:
        write(graph, manifest, path, stage)
    assert not path.parent.exists()
    manifest.training.export_deviation = float("nan")
    with pytest.raises(UserError, match="was not written"), staged() as stage:
        write(graph, manifest, path, stage)
    assert not list(tmp_path.iterdir())


def test_the_status_recipe_writes_no_model(fit_into: Fit, tmp_path: Path) -> None:
    path = fit_into(tmp_path, "article-risk", "training.epochs=1")
    assert not path.exists()
    assert (tmp_path / "report" / "roc.png").is_file()


def slope_data() -> Splits[TensorDataset]:
    """One feature with inverted classes in validation: each step that fits training makes validation worse."""
    rows = torch.linspace(-1, 1, 64)[:, None]
    labels = (rows[:, 0] > 0).long()
    return Splits(TensorDataset(rows, labels), TensorDataset(rows, 1 - labels), TensorDataset(rows, labels))


def test_early_stopping_ends_with_the_best_weights() -> None:
    network = nn.Linear(1, 2)
    nn.init.zeros_(network.weight)
    nn.init.zeros_(network.bias)
    overrides = ["training.epochs=50", "training.patience=3", "training.learning_rate=0.1"]
    settings = load_recipe("digits", overrides).training
    history = train(network, slope_data(), settings, Fabric(accelerator="cpu", devices=1), Console(quiet=True))
    assert [epoch.number for epoch in history] == [1, 2, 3, 4]
    inputs, labels = slope_data().validation.tensors
    validation = nn.functional.cross_entropy(network(inputs), labels)
    assert validation.item() == pytest.approx(history[0].validation_loss)


def test_a_nan_loss_stops_training() -> None:
    network = nn.Linear(1, 2)
    nn.init.constant_(network.weight, torch.nan)
    settings = load_recipe("digits").training
    with pytest.raises(UserError, match=r"the loss is nan in epoch 1; lower training\.learning_rate"):
        train(network, slope_data(), settings, Fabric(accelerator="cpu", devices=1), Console(quiet=True))
