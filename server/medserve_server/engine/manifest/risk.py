"""Validates the manifest of a patient risk model against its graph."""

import itertools
from collections.abc import Iterator, Sequence

import numpy as np

from medserve_proto.v1.manifest_pb2 import Feature, PatientRiskTask
from medserve_server.engine.manifest.tensors import confidence_problems, nan_problems, tensor_problems
from medserve_server.engine.session import TensorSpec
from medserve_server.inputs.patients import PatientReader


def risk_problems(task: PatientRiskTask, inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec]) -> Iterator[str]:
    """Finds contradictions within the task, and between the task and the graph."""
    yield from nan_problems(task, "patient_risk")
    times = len(task.curve_times)
    yield from tensor_problems("input", inputs, "features", "FP32", (-1, len(task.features)))
    yield from tensor_problems("output", outputs, "survival", "FP32", (-1, times))
    yield from confidence_problems(task, outputs, "member_survival", (-1, task.members, times))
    yield from _background_problems(task)
    yield from _risk_problems(task)


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
