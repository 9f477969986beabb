"""Evaluates an image classifier into its manifest, for `fit`, `evaluate` and `verify`."""

from collections.abc import Mapping, Sequence

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from medserve_proto.v1 import manifest_pb2 as pb
from medserve_training.data.splits import Images, Splits
from medserve_training.export.inference import predict
from medserve_training.metrics.classification import classification_metrics
from medserve_training.metrics.operating_points import operating_points, threshold_curve

Floats = NDArray[np.float64]
# Fraction of the validation split that the novelty threshold flags.
FALSE_ALARMS = 0.015


def measure_images(
    manifest: pb.Manifest, session: onnxruntime.InferenceSession, data: Splits[Images], splits: Sequence[str]
) -> dict[str, Floats]:
    """Chooses operating points and the novelty threshold on validation, and evaluates splits, in place.

    The evaluation includes a threshold curve for each split and label that has operating points.

    Args:
        manifest: Names the labels and receives the results; with two labels, operating points are chosen for the
            second.
        session: The model.
        data: The images.
        splits: "validation", and "test" for the final evaluation.

    Returns:
        The probabilities of each split, [n, classes].
    """
    task = manifest.image_classification
    output = {split: predict(session, data.part(split).pixels).astype(np.float64) for split in splits}
    threshold = _choose_threshold(task, output["validation"], data.validation.labels)
    _set_curves(manifest, output, data)
    if task.HasField("novelty"):
        scores = predict(session, data.validation.pixels, "novelty")
        task.novelty.threshold = float(np.quantile(scores, 1 - FALSE_ALARMS))
        task.novelty.false_alarms = float((scores > task.novelty.threshold).mean())
    metrics = {
        split: classification_metrics(probabilities, data.part(split).labels, threshold)
        for split, probabilities in output.items()
    }
    set_evaluations(manifest, metrics, {split: len(rows) for split, rows in output.items()})
    return output


def _choose_threshold(task: pb.ImageClassificationTask, validation: Floats, labels: NDArray[np.int64]) -> float | None:
    del task.operating_points[:]
    if len(task.labels) != 2:
        return None
    task.operating_points.extend(operating_points(validation[:, 1], labels, task.labels[1]))
    task.default_operating_point = task.operating_points[0].name
    return task.operating_points[0].threshold


def _set_curves(manifest: pb.Manifest, output: Mapping[str, Floats], data: Splits[Images]) -> None:
    task = manifest.image_classification
    del task.threshold_curves[:]
    for label in dict.fromkeys(point.positive_label for point in task.operating_points):
        column = list(task.labels).index(label)
        for split, probabilities in output.items():
            positive = (data.part(split).labels == column).astype(np.int64)
            curve = threshold_curve(probabilities[:, column], positive, label, manifest.training.data, split)
            task.threshold_curves.append(curve)


def validation_metric(manifest: pb.Manifest, name: str) -> float:
    """Returns one metric of the validation split."""
    (evaluation,) = (entry for entry in manifest.evaluations if entry.split == "validation" and not entry.subgroup)
    (metric,) = (metric for metric in evaluation.metrics if metric.name == name)
    return metric.value


def set_evaluations(
    manifest: pb.Manifest, metrics: Mapping[str, Sequence[pb.Metric]], sizes: Mapping[str, int]
) -> None:
    """Sets the evaluations of the manifest to the metrics of each split, replacing existing ones."""
    del manifest.evaluations[:]
    for split, figures in metrics.items():
        data = manifest.training.data
        manifest.evaluations.append(pb.Evaluation(data=data, split=split, size=sizes[split], metrics=figures))
