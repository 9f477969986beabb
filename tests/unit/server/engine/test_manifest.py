"""A manifest must match the graph."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from medserve_proto.v1 import manifest_pb2 as pb
from medserve_server.config import Settings
from medserve_server.engine.manifest.reader import read_manifest
from medserve_server.engine.session import Session
from medserve_server.errors import ModelLoadError
from medserve_server.registry.integrity import read_model
from samples import explained_models as known
from samples import onnx_models
from servers.server_process import REPOSITORY


def read(folder: Path, manifest: pb.Manifest) -> pb.Manifest | None:
    """Reads a manifest from a file with the graph that it must match."""
    make = known.lesions if manifest.HasField("image_classification") else known.decay
    path = onnx_models.save(folder, manifest.name, make(manifest))
    session = Session(read_model(path, max_bytes=2**24, listed=None, public_key=None), "cpu", Settings())
    return read_manifest(path, session.metadata, session.inputs, session.outputs)


@pytest.mark.parametrize("manifest", [known.lesions_manifest(), known.decay_manifest()])
def test_a_manifest_that_matches_the_graph_is_read(tmp_path: Path, manifest: pb.Manifest) -> None:
    assert read(tmp_path, manifest) == manifest


def add_curve(task: pb.ImageClassificationTask, **changes: Any) -> None:  # noqa: ANN401 - fields of several types
    """Adds a valid threshold curve, except for the changed fields."""
    valid = {
        "positive_label": "lesion",
        "split": "test",
        "thresholds": [0, 0.5, 1],
        "sensitivities": [1, 0.9, 0],
        "specificities": [0, 0.8, 1],
    }
    task.threshold_curves.append(pb.ThresholdCurve(**(valid | changes)))


def test_a_manifest_with_threshold_curves_is_read(tmp_path: Path) -> None:
    manifest = known.lesions_manifest()
    add_curve(manifest.image_classification)
    add_curve(manifest.image_classification, positive_label="clear", thresholds=[0.1, 0.2, 0.3])
    assert read(tmp_path, manifest) == manifest


BAD_IMAGE_TASKS: dict[str, tuple[Callable[[pb.ImageClassificationTask], object], str]] = {
    "members": (
        lambda task: setattr(task, "members", 4),
        "member_probabilities is FP32 [-1, 3, 2] in the graph and FP32 [-1, 4, 2] in the manifest",
    ),
    "threshold": (
        lambda task: setattr(task.novelty, "threshold", float("inf")),
        "novelty.threshold is inf, expected a finite number",
    ),
    "activation": (
        lambda task: setattr(task.class_activation, "height", 7),
        "class_activation is FP32 [-1, 2, 2, 3] in the graph and FP32 [-1, 2, 7, 3] in the manifest",
    ),
    "layer": (
        lambda task: task.feature_maps.add(layer="top", channels=1),
        "the graph has no output feature_map.top, only probabilities, member_probabilities",
    ),
    "layer's size": (
        lambda task: setattr(task.feature_maps[0].size, "width", 2),
        "feature_map.pool is FP32 [-1, 1, 2, 3] in the graph and FP32 [-1, 1, 2, 2] in the manifest",
    ),
    "layer twice": (
        lambda task: task.feature_maps.append(task.feature_maps[0]),
        "a layer of feature_maps occurs twice",
    ),
    "curve of another label": (
        lambda task: add_curve(task, positive_label="tumor"),
        "threshold_curves[0]: positive_label 'tumor' is not a label",
    ),
    "curve without thresholds": (
        lambda task: add_curve(task, thresholds=[], sensitivities=[], specificities=[]),
        "threshold_curves[0] has 0 thresholds, 0 sensitivities and 0 specificities, expected as many of each",
    ),
    "short curve": (
        lambda task: add_curve(task, specificities=[0, 0.5]),
        "threshold_curves[0] has 3 thresholds, 3 sensitivities and 2 specificities, expected as many of each",
    ),
    "unordered curve": (
        lambda task: add_curve(task, thresholds=[0, 0.5, 0.5]),
        "threshold_curves[0].thresholds are not strictly increasing",
    ),
    "curve beyond 1": (
        lambda task: add_curve(task, thresholds=[0, 0.5, 1.5]),
        "threshold_curves[0].thresholds contains 1.5, expected numbers from 0 to 1",
    ),
    "negative sensitivity": (
        lambda task: add_curve(task, sensitivities=[1, 0.5, -0.1]),
        "threshold_curves[0].sensitivities contains -0.1, expected numbers from 0 to 1",
    ),
    "infinite specificity": (
        lambda task: add_curve(task, specificities=[0, 0.5, float("inf")]),
        "threshold_curves[0].specificities contains inf, expected numbers from 0 to 1",
    ),
    "specificity without value": (
        lambda task: add_curve(task, specificities=[0, 0.5, float("nan")]),
        "image_classification.threshold_curves.specificities is NaN, expected a number",
    ),
}
BAD_RISK_TASKS: dict[str, tuple[Callable[[pb.PatientRiskTask], object], str]] = {
    "members": (
        lambda task: setattr(task, "members", 4),
        "member_survival is FP32 [-1, 2, 3] in the graph and FP32 [-1, 4, 3] in the manifest",
    ),
    "threshold": (
        lambda task: setattr(task.novelty, "threshold", float("nan")),
        "novelty.threshold is nan, expected a finite number",
    ),
    "short background": (
        lambda task: task.background.add(features=[50, 20, 1]),
        "background[5] has 3 values, expected 4",
    ),
    "hole in the background": (
        lambda task: task.background.add(features=[50, float("nan"), 1, 2]),
        "background[5] has a missing value",
    ),
    "impossible background": (
        lambda task: task.background.add(features=[50, 20, 3, 2]),
        "background[5]: row 0, column 2 (grade) is 3, expected one of I, II, III",
    ),
}


@pytest.mark.parametrize("name", BAD_IMAGE_TASKS)
def test_an_image_task_that_contradicts_the_graph_is_rejected(tmp_path: Path, name: str) -> None:
    change, text = BAD_IMAGE_TASKS[name]
    manifest = known.lesions_manifest()
    change(manifest.image_classification)
    with pytest.raises(ModelLoadError) as caught:
        read(tmp_path, manifest)
    assert text in str(caught.value)


@pytest.mark.parametrize("name", BAD_RISK_TASKS)
def test_a_risk_task_that_contradicts_the_graph_is_rejected(tmp_path: Path, name: str) -> None:
    change, text = BAD_RISK_TASKS[name]
    manifest = known.decay_manifest()
    change(manifest.patient_risk)
    with pytest.raises(ModelLoadError) as caught:
        read(tmp_path, manifest)
    assert text in str(caught.value)


def test_the_order_of_a_graphs_outputs_is_irrelevant() -> None:
    path = REPOSITORY / "models/chest-xray/1/model.onnx"
    session = Session(read_model(path, max_bytes=2**24, listed=None, public_key=None), "cpu", Settings())
    assert len(session.outputs) > 1
    assert read_manifest(path, session.metadata, session.inputs, session.outputs[::-1]) is not None
