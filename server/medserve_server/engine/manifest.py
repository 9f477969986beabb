"""Reads a model's manifest from the metadata of its ONNX file and validates it against the graph."""

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from google.protobuf import json_format
from google.protobuf.message import Message

from medserve_proto.v1.manifest_pb2 import (
    COLOR_SPACE_RGB,
    CROP_UNSPECIFIED,
    RESAMPLING_UNSPECIFIED,
    Feature,
    ImageClassificationTask,
    Manifest,
    PatientRiskTask,
)
from medserve_server.engine.session import TensorSpec
from medserve_server.errors import ModelLoadError
from medserve_server.inputs.patients import PatientReader

KEY = "medserve.manifest"
SCHEMA_VERSION = 1


def read_manifest(
    path: Path, metadata: Mapping[str, str], inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec]
) -> Manifest | None:
    """Parses and validates the manifest; returns None if the file has none.

    Raises:
        ModelLoadError: the manifest cannot be parsed, has an unsupported schema version, is inconsistent, or does not
            match the graph.
    """
    if KEY not in metadata:
        return None
    try:
        manifest = json_format.Parse(metadata[KEY], Manifest())
    except json_format.ParseError as error:
        raise ModelLoadError(f"{path}: {KEY} is not a valid manifest: {error}") from error
    if problems := list(_problems(manifest, inputs, outputs)):
        raise ModelLoadError(f"{path}: invalid manifest: {'; '.join(problems)}")
    return manifest


def _problems(manifest: Manifest, inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec]) -> Iterator[str]:
    if manifest.schema_version != SCHEMA_VERSION:
        yield f"schema_version is {manifest.schema_version}, this server supports {SCHEMA_VERSION}"
        return
    match manifest.WhichOneof("task"):
        case "image_classification":
            task = manifest.image_classification
            yield from _nan_problems(task, "image_classification")
            channels = 3 if task.input.color_space == COLOR_SPACE_RGB else 1
            shape = (-1, task.input.height, task.input.width, channels)
            yield from _tensor_problems("input", inputs, "image", "UINT8", shape)
            yield from _tensor_problems("output", outputs, "probabilities", "FP32", (-1, len(task.labels)))
            yield from _confidence_problems(task, outputs, "member_probabilities", len(task.labels))
            yield from _map_problems(task, outputs)
            yield from _image_problems(task)
            yield from _curve_problems(task)
        case "patient_risk":
            risk = manifest.patient_risk
            yield from _nan_problems(risk, "patient_risk")
            yield from _tensor_problems("input", inputs, "features", "FP32", (-1, len(risk.features)))
            yield from _tensor_problems("output", outputs, "survival", "FP32", (-1, len(risk.curve_times)))
            yield from _confidence_problems(risk, outputs, "member_survival", len(risk.curve_times))
            yield from _background_problems(risk)
            yield from _risk_problems(risk)
        case _:
            yield "no task is set"
            return
    yield from _reference_problems(manifest, inputs, outputs)


def main_output(manifest: Manifest) -> str:
    """Returns the name of the output whose values the manifest's reference rows contain."""
    return "survival" if manifest.WhichOneof("task") == "patient_risk" else "probabilities"


def _reference_problems(
    manifest: Manifest, inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec]
) -> Iterator[str]:
    """Checks that each reference row holds one row of the input and one of the output."""
    row = math.prod(inputs[0].shape[1:])
    answer = next((math.prod(spec.shape[1:]) for spec in outputs if spec.name == main_output(manifest)), 0)
    images = manifest.WhichOneof("task") == "image_classification"
    for index, reference in enumerate(manifest.reference):
        size = len(reference.pixels if images else reference.features)
        if (size, len(reference.probabilities)) != (row, answer):
            yield (
                f"reference[{index}] has {size} values and {len(reference.probabilities)} probabilities, "
                f"expected {row} and {answer}"
            )


def _nan_problems(message: Message, path: str) -> Iterator[str]:
    """Finds NaN values, which the range checks would not detect."""
    for field, value in message.ListFields():
        for entry in value if field.is_repeated else (value,):
            if isinstance(entry, Message):
                yield from _nan_problems(entry, f"{path}.{field.name}")
            elif isinstance(entry, float) and math.isnan(entry):
                yield f"{path}.{field.name} is NaN, expected a number"


def _tensor_problems(
    kind: str, specs: Sequence[TensorSpec], name: str, datatype: str, shape: tuple[int, ...]
) -> Iterator[str]:
    found = {spec.name: spec for spec in specs}
    if name not in found:
        yield f"the graph has no {kind} {name}, only {', '.join(found)}"
    elif (found[name].datatype, found[name].shape) != (datatype, shape):
        yield (
            f"{kind} {name} is {found[name].datatype} {list(found[name].shape)} in the graph "
            f"and {datatype} {list(shape)} in the manifest"
        )


def _confidence_problems(
    task: ImageClassificationTask | PatientRiskTask, outputs: Sequence[TensorSpec], members: str, width: int
) -> Iterator[str]:
    """Checks the optional outputs that models of both tasks may have."""
    if task.members > 1:
        yield from _tensor_problems("output", outputs, members, "FP32", (-1, task.members, width))
    if task.HasField("novelty"):
        yield from _tensor_problems("output", outputs, "novelty", "FP32", (-1,))
        if not math.isfinite(task.novelty.threshold):
            yield f"novelty.threshold is {task.novelty.threshold}, expected a finite number"


def _map_problems(task: ImageClassificationTask, outputs: Sequence[TensorSpec]) -> Iterator[str]:
    if task.HasField("class_activation"):
        size = task.class_activation
        shape = (-1, len(task.labels), size.height, size.width)
        yield from _tensor_problems("output", outputs, "class_activation", "FP32", shape)
    layers = [one.layer for one in task.feature_maps]
    if len(set(layers)) != len(layers):
        yield "a layer of feature_maps occurs twice"
    for one in task.feature_maps:
        shape = (-1, one.channels, one.size.height, one.size.width)
        yield from _tensor_problems("output", outputs, f"feature_map.{one.layer}", "FP32", shape)


def _background_problems(task: PatientRiskTask) -> Iterator[str]:
    """Checks that background patients are complete, valid rows of the input."""
    reader = PatientReader(task, len(task.features))
    for index, patient in enumerate(task.background):
        row = np.array([patient.features], np.float32)
        if row.shape[1] != len(task.features):
            yield f"background[{index}] has {row.shape[1]} values, expected {len(task.features)}"
        elif np.isnan(row).any():
            yield f"background[{index}] has a missing value"
        elif problem := next(reader.check(row), None):
            yield f"background[{index}]: {problem}"


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


def _feature_problems(feature: Feature) -> Iterator[str]:
    if feature.WhichOneof("missing") is None:
        yield "does not define how a missing value is handled"
    match feature.WhichOneof("kind"):
        case "numeric":
            numeric = feature.numeric
            if not numeric.valid_min <= numeric.training_min <= numeric.training_max <= numeric.valid_max:
                yield "has a training range that is not within its valid range"
        case "categorical":
            categories = feature.categorical.names
            if not 0 <= feature.imputed_as < len(categories):
                yield f"is imputed as category index {feature.imputed_as:g}, but has {len(categories)} categories"
        case _:
            yield "is neither numeric nor categorical"


def _risk_problems(task: PatientRiskTask) -> Iterator[str]:
    names = [feature.name for feature in task.features]
    if len(set(names)) != len(names):
        yield "a feature occurs twice"
    for feature in task.features:
        yield from (f"feature {feature.name} {problem}" for problem in _feature_problems(feature))
    times = list(task.curve_times)
    if not times or times[0] != 0 or any(not later > earlier for earlier, later in itertools.pairwise(times)):
        yield "curve_times are not strictly increasing from 0"
    for horizon in task.horizons:
        if horizon.time not in times:
            yield f"horizon {horizon.label} at {horizon.time} is not one of curve_times"
    if task.reference_horizon not in {horizon.label for horizon in task.horizons}:
        yield f"reference_horizon {task.reference_horizon!r} is not a horizon"
    bounds = [group.risk_below for group in task.risk_groups]
    if not bounds or bounds[-1] <= 1 or bounds != sorted(bounds):
        yield "risk_below of risk_groups does not increase to a last value above 1"
