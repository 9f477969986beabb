"""Agreement of a measure with its reference (Bland & Altman 1986)."""

import numpy as np
from numpy.typing import NDArray

from medserve_proto.v1 import manifest_pb2 as pb
from medserve_training.metrics.bootstrap import metric, resampled_means

Floats = NDArray[np.float64]


def limits_of_agreement(differences: Floats) -> tuple[float, float]:
    """Returns the mean difference, and 1.96 standard deviations: the limits of agreement are their difference and sum.

    Args:
        differences: Measure minus reference, [n], at least two.
    """
    return float(differences.mean()), float(1.96 * differences.std(ddof=1))


def agreement_metrics(
    name: str, measured: Floats, reference: Floats, clusters: NDArray[np.generic], unit: str
) -> list[pb.Metric]:
    """Returns the mean difference, both 95 % limits of agreement and the mean absolute difference, in millimeters.

    Args:
        name: Name of the measure, e.g. "head circumference".
        measured: The measure, in millimeters, [n], at least two.
        reference: [n].
        clusters: The cluster of each row, [n], see `resampled_means`.
        unit: What the clusters are, in the plural, e.g. "patients".
    """
    differences = measured - reference
    bias, limit = limits_of_agreement(differences)
    rows = np.stack([differences, differences**2, np.abs(differences)], axis=1)
    biases, squares, absolute = resampled_means(rows, clusters).T
    limits = 1.96 * np.sqrt(np.maximum(squares - biases**2, 0) * len(rows) / (len(rows) - 1))
    prefix = name.replace(" ", "_")
    return [
        metric(f"{prefix}_bias_mm", bias, biases, unit),
        metric(f"{prefix}_lower_limit_of_agreement_mm", bias - limit, biases - limits, unit),
        metric(f"{prefix}_upper_limit_of_agreement_mm", bias + limit, biases + limits, unit),
        metric(f"{prefix}_mean_absolute_difference_mm", float(np.abs(differences).mean()), absolute, unit),
    ]
