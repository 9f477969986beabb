from pathlib import Path

import numpy as np
import onnx
import pytest

from medserve_proto.v1 import manifest_pb2 as pb
from medserve_training.errors import UserError
from medserve_training.export.inference import open_session, predict
from medserve_training.export.manifest import read_manifest
from medserve_training.export.onnx_file import write
from medserve_training.export.reference import made_up_images, made_up_patients, reference_deviation, reference_input
from medserve_training.staging import staged

MODELS = Path(__file__).parents[3] / "models"


def test_there_are_eight_images_of_the_manifests_size(digits_model: Path) -> None:
    manifest = read_manifest(digits_model)
    assert [len(row.pixels) for row in manifest.reference] == [28 * 28] * 8
    assert [len(row.probabilities) for row in manifest.reference] == [10] * 8
    assert not any(row.features for row in manifest.reference)
    assert len({row.pixels for row in manifest.reference}) == 8


def test_there_are_eight_patients_within_the_training_range(risk_model: Path) -> None:
    manifest = read_manifest(risk_model)
    rows = reference_input(manifest)
    assert rows.shape == (8, 8)
    assert [len(row.probabilities) for row in manifest.reference] == [13] * 8
    for feature, column in zip(manifest.patient_risk.features, rows.T, strict=True):
        known = column[~np.isnan(column)]
        if feature.WhichOneof("kind") == "numeric":
            limits = feature.numeric
            assert ((known >= limits.training_min) & (known <= limits.training_max)).all()
        else:
            assert set(known) <= set(range(len(feature.categorical.names)))
        if feature.WhichOneof("missing") == "required":
            assert len(known) == 8
        else:
            assert 4 <= len(known) < 8
        if feature.numeric.integer:
            assert (known == known.round()).all()


@pytest.mark.parametrize("model", ["digits_model", "risk_model", "chest-xray", "breast-cancer-risk"])
def test_onnx_runtime_reproduces_pytorch(model: str, request: pytest.FixtureRequest) -> None:
    path: Path = MODELS / model / "1" / "model.onnx" if "-" in model else request.getfixturevalue(model)
    manifest = read_manifest(path)
    output = predict(open_session(path), reference_input(manifest))
    assert reference_deviation(manifest, output) <= 1e-5
    # Rows whose probabilities are all 0 or 1 would detect no deviation.
    assert ((output > 0.05) & (output < 0.95)).any(axis=1).sum() >= 4


def test_colors_differ_and_depend_on_the_seed() -> None:
    first, again, other = (made_up_images(20, 30, 3, np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert first.shape == (8, 20, 30, 3)
    assert (first[..., 0] != first[..., 2]).any(axis=(1, 2)).all()
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


def test_required_covariates_are_never_missing() -> None:
    number = pb.NumericRange(training_min=-3, training_max=9)
    rows = made_up_patients([pb.Feature(required=True, numeric=number)] * 3, np.random.default_rng(0))
    assert ((rows >= -3) & (rows <= 9)).all()


def test_a_graph_that_differs_on_the_reference_rows_is_not_written(digits_model: Path, tmp_path: Path) -> None:
    manifest = read_manifest(digits_model)
    manifest.reference[3].probabilities[0] += 1e-4
    message = r"differ by 0\.0001 on the reference rows.* was not written"
    with pytest.raises(UserError, match=message), staged() as stage:
        write(onnx.load(digits_model), manifest, tmp_path / "model.onnx", stage)
    assert not list(tmp_path.iterdir())
