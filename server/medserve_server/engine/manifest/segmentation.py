"""Validates the manifest of an image segmentation model against its graph."""

import math
from collections.abc import Iterator, Sequence

from medserve_proto.v1.manifest_pb2 import (
    COLOR_SPACE_RGB,
    COLOR_SPACE_UNSPECIFIED,
    RESAMPLING_UNSPECIFIED,
    ImageSegmentationTask,
    Manifest,
    Measure,
    SegmentationInput,
    SegmentedLabel,
)
from medserve_server.engine.manifest.tensors import confidence_problems, nan_problems, tensor_problems
from medserve_server.engine.session import TensorSpec

MAX_SIDE = 1024
"""Maximum height and width of an input in pixels: it bounds the memory of a run, whose rows have at least one tile."""
MARGINS_PER_TILE = 6
"""Neighboring tiles overlap by three margins, which may be at most half a tile."""
REFERENCE_STEP = 8
"""Reference rows contain the probabilities at every eighth row and column."""


def input_shape(task: ImageSegmentationTask) -> tuple[int, int, int]:
    """Returns height, width and channels of the largest input that the graph receives."""
    channels = 3 if task.input.color_space == COLOR_SPACE_RGB else 1
    if task.input.WhichOneof("extent") == "fixed":
        return task.input.fixed.height, task.input.fixed.width, channels
    return task.input.tiling.max_side, task.input.tiling.max_side, channels


def map_outputs(task: ImageSegmentationTask) -> tuple[str, ...]:
    """Returns the names of the outputs [batch, number of labels, height, width] that the graph has."""
    names = ["probabilities"]
    if any(label.HasField("marker_distance") for label in task.labels):
        names.append("distance")
    if task.members > 1:
        names.append("disagreement")
    return tuple(names)


def segmentation_problems(
    task: ImageSegmentationTask, inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec]
) -> Iterator[str]:
    """Finds contradictions within the task, and between the task and the graph."""
    yield from nan_problems(task, "image_segmentation")
    yield from _tensor_problems(task, inputs, outputs)
    yield from (f"image_segmentation.input.{problem}" for problem in _input_problems(task.input))
    if not task.labels:
        yield "image_segmentation.labels is empty"
    if len({label.name for label in task.labels}) != len(task.labels):
        yield "a label occurs twice"
    for label in task.labels:
        yield from (f"label {label.name}: {problem}" for problem in _label_problems(label))


def segmentation_reference_problems(manifest: Manifest) -> Iterator[str]:
    """Checks that each reference row holds an input, and the probabilities at every eighth row and column."""
    task = manifest.image_segmentation
    height, width, channels = input_shape(task)
    for index, reference in enumerate(manifest.reference):
        size, stride = reference.size, task.input.stride or 1
        if size.height % stride or size.width % stride or not (0 < size.height <= height and 0 < size.width <= width):
            yield (
                f"reference[{index}].size is {size.height} x {size.width}, "
                f"expected multiples of {stride} up to {height} x {width}"
            )
        row = size.height * size.width * channels
        answer = len(task.labels) * math.ceil(size.height / REFERENCE_STEP) * math.ceil(size.width / REFERENCE_STEP)
        if (len(reference.pixels), len(reference.probabilities)) != (row, answer):
            yield (
                f"reference[{index}] has {len(reference.pixels)} values and {len(reference.probabilities)} "
                f"probabilities, expected {row} and {answer}"
            )


def _tensor_problems(
    task: ImageSegmentationTask, inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec]
) -> Iterator[str]:
    """Checks the tensors, whose height and width are free; those of a model for a fixed size may also be that size."""
    *fixed, channels = input_shape(task)
    shape = next((spec.shape for spec in inputs if spec.name == "image"), ())
    size = fixed if task.input.HasField("fixed") and list(shape[1:3]) == fixed else [-1, -1]
    yield from tensor_problems("input", inputs, "image", "UINT8", (-1, *size, channels))
    maps = (-1, len(task.labels), *size)
    for name in map_outputs(task):
        yield from tensor_problems("output", outputs, name, "FP32", maps)
    yield from confidence_problems(task, outputs, "disagreement", maps)


def _input_problems(image: SegmentationInput) -> Iterator[str]:
    if image.color_space == COLOR_SPACE_UNSPECIFIED:
        yield "color_space is missing"
    if not 1 <= image.stride <= MAX_SIDE:
        yield f"stride is {image.stride}, expected 1 to {MAX_SIDE}"
        return
    match image.WhichOneof("extent"):
        case "fixed":
            sides = {"fixed.height": image.fixed.height, "fixed.width": image.fixed.width}
            if image.fixed.resampling == RESAMPLING_UNSPECIFIED:
                yield "fixed.resampling is missing"
        case "tiling":
            sides = {"tiling.max_side": image.tiling.max_side}
            if image.tiling.margin * MARGINS_PER_TILE > image.tiling.max_side:
                yield f"tiling.margin is {image.tiling.margin}, expected at most a sixth of max_side"
        case _:
            yield "extent is missing, expected fixed or tiling"
            return
    for name, side in sides.items():
        if side % image.stride or not 0 < side <= MAX_SIDE:
            yield f"{name} is {side}, expected a multiple of the stride {image.stride} up to {MAX_SIDE}"


def _label_problems(label: SegmentedLabel) -> Iterator[str]:
    if not label.name:
        yield "its name is missing"
    if not 0 < label.threshold <= 1:
        yield f"threshold is {label.threshold}, expected a probability above 0"
    if label.HasField("marker_distance") and not 0 < label.marker_distance <= 1:
        yield f"marker_distance is {label.marker_distance}, expected a number above 0 and up to 1"
    if label.HasField("count_error"):
        error = label.count_error
        if not 0 <= error.low_ratio <= error.high_ratio < math.inf:
            yield f"count_error is from {error.low_ratio} to {error.high_ratio}, expected an increasing range"
        if not 0 <= error.coverage <= 1:
            yield f"count_error.coverage is {error.coverage}, expected a fraction"
    if len({measure.name for measure in label.measures}) != len(label.measures):
        yield "a measure occurs twice"
    for measure in label.measures:
        yield from (f"measure {measure.name}: {problem}" for problem in _measure_problems(measure))


def _measure_problems(measure: Measure) -> Iterator[str]:
    if measure.kind != Measure.KIND_ELLIPSE_CIRCUMFERENCE:
        yield f"kind is {measure.kind}, which this server does not support"
    for name in ("offset_px", "bias_mm", "agreement_mm"):
        if not math.isfinite(value := getattr(measure, name)):
            yield f"{name} is {value}, expected a finite number"
    if measure.agreement_mm < 0:
        yield f"agreement_mm is {measure.agreement_mm}, expected at least 0"
