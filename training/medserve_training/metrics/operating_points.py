"""Operating points: decision thresholds chosen on validation data, and the figures at other thresholds."""

import numpy as np
from numpy.typing import NDArray

from medserve_proto.v1 import manifest_pb2 as pb

Floats = NDArray[np.float64]
Labels = NDArray[np.int64]

SENSITIVITIES = (0.95, 0.9, 0.98)
# Cost of a false negative relative to a false positive.
MISS_COSTS = (5,)
# Without 1: whether a probability is rounded to 1 depends on the processor.
GRID = np.arange(100) / 100


def sensitivity_specificity(scores: Floats, labels: Labels, threshold: float) -> tuple[float, float]:
    """Returns the fraction of positives (label 1) at or above the threshold, and of negatives below it."""
    positive = scores >= threshold
    return float(positive[labels == 1].mean()), float((~positive)[labels == 0].mean())


def operating_points(scores: Floats, labels: Labels, positive_label: str) -> list[pb.OperatingPoint]:
    """Chooses operating points, the default first: the highest threshold with a sensitivity of at least 0.95.

    The others are the same for 0.90 and 0.98, Youden's (1950: the largest sum of sensitivity and specificity), and the
    one with the lowest cost if a false negative costs as much as five false positives. Thresholds are halfway between
    two adjacent scores, so that rounding of a score does not change a decision.

    Args:
        scores: Probability of the positive label, [n].
        labels: 0 or 1, [n].
        positive_label: Name of label 1.
    """
    ordered = np.unique(scores)
    # At 0 all rows are positive.
    thresholds = np.concatenate([[0.0], (ordered[1:] + ordered[:-1]) / 2])
    rates = np.array([sensitivity_specificity(scores, labels, threshold) for threshold in thresholds])
    sensitivity, specificity = rates.T
    prevalence = labels.mean()
    chosen = {f"sensitivity-{least:.2f}": np.flatnonzero(sensitivity >= least)[-1] for least in SENSITIVITIES}
    chosen["youden"] = rates.sum(axis=1).argmax()
    for cost in MISS_COSTS:
        spent = cost * prevalence * (1 - sensitivity) + (1 - prevalence) * (1 - specificity)
        chosen[f"cost-{cost}"] = spent.argmin()
    return [
        pb.OperatingPoint(
            name=name,
            positive_label=positive_label,
            threshold=thresholds[index],
            sensitivity=sensitivity[index],
            specificity=specificity[index],
            chosen_on="validation",
        )
        for name, index in chosen.items()
    ]


def threshold_curve(scores: Floats, labels: Labels, positive_label: str, data: str, split: str) -> pb.ThresholdCurve:
    """Computes sensitivity and specificity at the thresholds 0, 0.01, ..., 0.99.

    Args:
        scores: Probability of the positive label, [n].
        labels: 1 for the positive label, 0 for all others, [n].
        positive_label: Name of label 1.
        data: Description of the data set.
        split: Name of the split.
    """
    rates = [sensitivity_specificity(scores, labels, threshold) for threshold in GRID]
    sensitivities, specificities = zip(*rates, strict=True)
    return pb.ThresholdCurve(
        positive_label=positive_label,
        data=data,
        split=split,
        thresholds=GRID,
        sensitivities=sensitivities,
        specificities=specificities,
    )
