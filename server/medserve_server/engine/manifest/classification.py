"""Validates the manifest of an image classification model against its graph."""

import itertools
from collections.abc import Iterator, Sequence

from medserve_proto.v1.manifest_pb2 import (
    COLOR_SPACE_RGB,
    CROP_UNSPECIFIED,
    RESAMPLING_UNSPECIFIED,
    ImageClassificationTask,
)
from medserve_server.engine.manifest.tensors import confidence_problems, nan_problems, tensor_problems
from medserve_server.engine.session import TensorSpec


def classification_problems(
    task: ImageClassificationTask, inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec]
) -> Iterator[str]:
    """Finds contradictions within the task, and between the task and the graph."""
    yield from nan_problems(task, "image_classification")
    channels = 3 if task.input.color_space == COLOR_SPACE_RGB else 1
    shape = (-1, task.input.height, task.input.width, channels)
    labels = len(task.labels)
    yield from tensor_problems("input", inputs, "image", "UINT8", shape)
    yield from tensor_problems("output", outputs, "probabilities", "FP32", (-1, labels))
    yield from confidence_problems(task, outputs, "member_probabilities", (-1, task.members, labels))
    yield from _map_problems(task, outputs)
    yield from _image_problems(task)
    yield from _curve_problems(task)


def _map_problems(task: ImageClassificationTask, outputs: Sequence[TensorSpec]) -> Iterator[str]:
    if task.HasField("class_activation"):
        size = task.class_activation
        shape = (-1, len(task.labels), size.height, size.width)
        yield from tensor_problems("output", outputs, "class_activation", "FP32", shape)
    layers = [one.layer for one in task.feature_maps]
    if len(set(layers)) != len(layers):
        yield "a layer of feature_maps occurs twice"
    for one in task.feature_maps:
        shape = (-1, one.channels, one.size.height, one.size.width)
        yield from tensor_problems("output", outputs, f"feature_map.{one.layer}", "FP32", shape)


def _image_problems(task: ImageClassificationTask) -> Iterator[str]:
    if len(set(task.labels)) != len(task.labels):
        yield "a label occurs twice"
    if task.input.crop == CROP_UNSPECIFIED:
        yield "image_classification.input.crop is missing"
    if task.input.resampling == RESAMPLING_UNSPECIFIED:
        yield "image_classification.input.resampling is missing"
    points = {point.name: point for point in task.operating_points}
    if task.default_operating_point not in (points or {""}):
        yield f"default_operating_point {task.default_operating_point!r} is not one of {list(points)}"
    for point in points.values():
        if point.positive_label not in task.labels:
            yield f"operating point {point.name}: positive_label {point.positive_label!r} is not a label"
        if not 0 <= point.threshold <= 1:
            yield f"operating point {point.name}: threshold {point.threshold} is not a probability"


def _curve_problems(task: ImageClassificationTask) -> Iterator[str]:
    for index, curve in enumerate(task.threshold_curves):
        name, thresholds = f"threshold_curves[{index}]", list(curve.thresholds)
        if curve.positive_label not in task.labels:
            yield f"{name}: positive_label {curve.positive_label!r} is not a label"
        sizes = (len(thresholds), len(curve.sensitivities), len(curve.specificities))
        if not thresholds or len(set(sizes)) > 1:
            yield "{} has {} thresholds, {} sensitivities and {} specificities, expected as many of each".format(
                name, *sizes
            )
        if any(not later > earlier for earlier, later in itertools.pairwise(thresholds)):
            yield f"{name}.thresholds are not strictly increasing"
        for field, values in (
            ("thresholds", thresholds),
            ("sensitivities", curve.sensitivities),
            ("specificities", curve.specificities),
        ):
            if (wrong := next((value for value in values if not 0 <= value <= 1), None)) is not None:
                yield f"{name}.{field} contains {wrong}, expected numbers from 0 to 1"
