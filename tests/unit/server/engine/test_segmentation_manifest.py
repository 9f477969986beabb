"""The manifest of a segmentation model must match its graph, and the outputs its reference rows."""

from collections.abc import Callable

import numpy as np
import pytest
from google.protobuf import json_format

from medserve_proto.v1 import manifest_pb2 as pb
from medserve_server.config import Settings
from medserve_server.engine.manifest.reader import KEY, read_manifest
from medserve_server.engine.parity import deviation
from medserve_server.engine.session import Session
from medserve_server.errors import ModelLoadError
from medserve_server.registry.integrity import read_model
from samples import onnx_models
from samples.segmentation_models import MAX_SIDE, bright, manifest, spots, stretched, tiled


def cells() -> pb.Manifest:
    """Returns a valid manifest with every field."""
    error = pb.CountError(low_ratio=0.9, high_ratio=1.2, coverage=0.9)
    measure = pb.Measure(name="girth", kind=pb.Measure.KIND_ELLIPSE_CIRCUMFERENCE, agreement_mm=1)
    labels = [bright("cell", marker_distance=0.7, count_error=error, measures=[measure]), bright("gap")]
    made = manifest(tiled(), labels, ensemble=True)
    image = np.arange(16 * 24, dtype=np.uint16).reshape(16, 24) % 256
    every_eighth = image[::8, ::8].ravel() / 255
    made.reference.add(
        pixels=image.astype(np.uint8).tobytes(),
        size=pb.MapSize(height=16, width=24),
        probabilities=[*every_eighth, *(1 - every_eighth)],
    )
    return made


@pytest.fixture(scope="module")
def session(tmp_path_factory: pytest.TempPathFactory) -> Session:
    """The graph that the manifests must match, which has all outputs for two labels."""
    graph = spots(manifest(tiled(), [bright("cell"), bright("gap")]))
    path = onnx_models.save(tmp_path_factory.mktemp("models"), "spots", graph)
    return Session(read_model(path, max_bytes=2**24, listed=None, public_key=None), "cpu", Settings())


def read(session: Session, made: pb.Manifest) -> pb.Manifest | None:
    metadata = {KEY: json_format.MessageToJson(made, preserving_proto_field_name=True)}
    return read_manifest(session.path, metadata, session.inputs, session.outputs)


@pytest.mark.parametrize(
    "made",
    [
        cells(),
        manifest(tiled(), [bright("a"), bright("b")]),
        manifest(stretched(64, 32), [bright("a"), bright("b")]),
    ],
)
def test_a_manifest_that_matches_the_graph_is_read(session: Session, made: pb.Manifest) -> None:
    assert read(session, made) == made


def test_the_deviation_from_the_reference_is_measured(session: Session) -> None:
    made = cells()
    assert deviation(session, made) == pytest.approx(0, abs=1e-6)
    made.reference[0].probabilities[3] += 0.25
    assert deviation(session, made) == pytest.approx(0.25)


Task = pb.ImageSegmentationTask
BAD: dict[str, tuple[Callable[[Task], object], str]] = {
    "color": (
        lambda task: setattr(task.input, "color_space", pb.COLOR_SPACE_RGB),
        "image is UINT8 [-1, -1, -1, 1] in the graph and UINT8 [-1, -1, -1, 3] in the manifest",
    ),
    "no color": (lambda task: task.input.ClearField("color_space"), "input.color_space is missing"),
    "labels": (
        lambda task: task.labels.append(bright("third")),
        "probabilities is FP32 [-1, 2, -1, -1] in the graph and FP32 [-1, 3, -1, -1] in the manifest",
    ),
    "label twice": (lambda task: setattr(task.labels[1], "name", "cell"), "a label occurs twice"),
    "label without name": (lambda task: task.labels[1].ClearField("name"), "its name is missing"),
    "no extent": (lambda task: task.input.ClearField("extent"), "input.extent is missing, expected fixed or tiling"),
    "no stride": (lambda task: task.input.ClearField("stride"), "input.stride is 0, expected 1 to 1024"),
    "tile": (
        lambda task: setattr(task.input.tiling, "max_side", MAX_SIDE + 1),
        "input.tiling.max_side is 65, expected a multiple of the stride 8 up to 1024",
    ),
    "large tile": (lambda task: setattr(task.input.tiling, "max_side", 1032), "tiling.max_side is 1032, expected"),
    "margin": (
        lambda task: setattr(task.input.tiling, "margin", 11),
        "input.tiling.margin is 11, expected at most a sixth of max_side",
    ),
    "fixed size": (
        lambda task: task.input.fixed.CopyFrom(pb.FixedSize(height=64, width=30)),
        "input.fixed.width is 30, expected a multiple of the stride 8 up to 1024",
    ),
    "no filter": (
        lambda task: task.input.fixed.CopyFrom(pb.FixedSize(height=64, width=32)),
        "input.fixed.resampling is missing",
    ),
    "threshold": (lambda task: setattr(task.labels[0], "threshold", 1.5), "label cell: threshold is 1.5, expected"),
    "no threshold": (lambda task: task.labels[0].ClearField("threshold"), "label cell: threshold is 0.0, expected"),
    "threshold without value": (
        lambda task: setattr(task.labels[0], "threshold", float("nan")),
        "image_segmentation.labels.threshold is NaN, expected a number",
    ),
    "marker": (lambda task: setattr(task.labels[0], "marker_distance", 2), "marker_distance is 2.0, expected"),
    "count": (
        lambda task: setattr(task.labels[0].count_error, "low_ratio", 2),
        "count_error is from 2.0 to 1.2, expected an increasing range",
    ),
    "coverage": (lambda task: setattr(task.labels[0].count_error, "coverage", 90), "count_error.coverage is 90.0"),
    "measure twice": (
        lambda task: task.labels[0].measures.append(task.labels[0].measures[0]),
        "label cell: a measure occurs twice",
    ),
    "measure of no kind": (
        lambda task: task.labels[0].measures[0].ClearField("kind"),
        "measure girth: kind is 0, which this server does not support",
    ),
    "infinite offset": (
        lambda task: setattr(task.labels[0].measures[0], "offset_px", float("inf")),
        "measure girth: offset_px is inf, expected a finite number",
    ),
    "negative agreement": (
        lambda task: setattr(task.labels[0].measures[0], "agreement_mm", -1),
        "measure girth: agreement_mm is -1.0, expected at least 0",
    ),
    "novelty": (lambda task: setattr(task.novelty, "threshold", float("inf")), "novelty.threshold is inf"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_task_that_contradicts_the_graph_is_rejected(session: Session, name: str) -> None:
    change, text = BAD[name]
    made = cells()
    change(made.image_segmentation)
    with pytest.raises(ModelLoadError) as caught:
        read(session, made)
    assert text in str(caught.value)


@pytest.mark.parametrize(("size", "text"), [((12, 24), "reference[0].size is 12 x 24"), ((16, 16), "has 384 values")])
def test_a_reference_row_of_another_size_is_rejected(session: Session, size: tuple[int, int], text: str) -> None:
    made = cells()
    made.reference[0].size.CopyFrom(pb.MapSize(height=size[0], width=size[1]))
    with pytest.raises(ModelLoadError) as caught:
        read(session, made)
    assert text in str(caught.value)
