"""Fills in what a manifest says about quality, from a model's output: used by `fit`, and again by `verify`."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from medserve_proto.v1 import manifest_pb2 as pb
from medserve_training.classification_metrics import classification_metrics, operating_points
from medserve_training.risk_metrics import reference_risk, risk_metrics
from medserve_training.splits import Images, Patients, Splits

# The last group's bound: the contract wants it above 1.
_ABOVE_ANY_RISK = 1.01


def measure_images(manifest: pb.Manifest, output: Splits[NDArray[np.float32]], data: Splits[Images]) -> None:
    """Chooses operating points on validation and evaluates validation and test, in place.

    Args:
        manifest: Names the labels; with two, operating points are chosen for the second.
        output: Probabilities, [n, classes] for each split.
        data: The pictures, of which only the labels are looked at.
    """
    task = manifest.image_classification
    del task.operating_points[:]
    threshold = None
    if len(task.labels) == 2:
        scores = output.validation[:, 1].astype(np.float64)
        task.operating_points.extend(operating_points(scores, data.validation.labels, task.labels[1]))
        task.default_operating_point = task.operating_points[0].name
        threshold = task.operating_points[0].threshold
    metrics = {
        "validation": classification_metrics(output.validation.astype(np.float64), data.validation.labels, threshold),
        "test": classification_metrics(output.test.astype(np.float64), data.test.labels, threshold),
    }
    _evaluate(manifest, metrics, {"validation": len(data.validation.labels), "test": len(data.test.labels)})


def measure_patients(manifest: pb.Manifest, output: Splits[NDArray[np.float32]], data: Splits[Patients]) -> None:
    """Cuts the risk groups on training and evaluates validation and test, in place.

    Args:
        manifest: Names times, horizons and groups.
        output: Survival, [n, curve times] for each split.
        data: The patients.
    """
    task = manifest.patient_risk
    risk = reference_risk(output.train.astype(np.float64), task)
    cuts = np.quantile(risk, np.arange(1, len(task.risk_groups)) / len(task.risk_groups))
    for group, bound in zip(task.risk_groups, [*cuts, _ABOVE_ANY_RISK], strict=True):
        group.risk_below = bound
    metrics = {
        "validation": risk_metrics(output.validation.astype(np.float64), data.train, data.validation, task),
        "test": risk_metrics(output.test.astype(np.float64), data.train, data.test, task),
    }
    _evaluate(manifest, metrics, {"validation": len(data.validation.times), "test": len(data.test.times)})


def validation_metric(manifest: pb.Manifest, name: str) -> float:
    """One figure of the validation split."""
    (evaluation,) = (evaluation for evaluation in manifest.evaluations if evaluation.split == "validation")
    (metric,) = (metric for metric in evaluation.metrics if metric.name == name)
    return metric.value


def _evaluate(manifest: pb.Manifest, metrics: Mapping[str, list[pb.Metric]], sizes: Mapping[str, int]) -> None:
    del manifest.evaluations[:]
    for split, figures in metrics.items():
        data = manifest.training.data
        manifest.evaluations.append(pb.Evaluation(data=data, split=split, size=sizes[split], metrics=figures))
