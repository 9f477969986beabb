"""Metrics of classifiers: discrimination, calibration, and decisions at operating points."""

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

from medserve_proto.v1 import manifest_pb2 as pb
from medserve_training.metrics.operating_points import sensitivity_specificity

Floats = NDArray[np.float64]
Labels = NDArray[np.int64]

RESAMPLES = 1000
_METHOD = f"bootstrap, {RESAMPLES} resamples within each class"
# Seed of the bootstrap, fixed for reproducible intervals.
_SEED = 0


def auroc(positive: Floats, negative: Floats) -> Floats:
    """Computes the area under the ROC curve as the Mann-Whitney statistic (Mann & Whitney 1947).

    Args:
        positive: Scores of the positives, [..., p].
        negative: Scores of the negatives, [..., n].

    Returns:
        One area for each leading index; ties count half.
    """
    p, n = positive.shape[-1], negative.shape[-1]
    ranks = rankdata(np.concatenate([positive, negative], axis=-1), axis=-1)[..., :p]
    area: Floats = (ranks.sum(axis=-1) - p * (p + 1) / 2) / (p * n)
    return area


def calibration_error(probabilities: Floats, labels: Labels, bins: int = 15, weights: Floats | None = None) -> float:
    """Returns the expected calibration error of the most probable label in equal-width bins (Guo et al. 2017, eq. 3).

    Args:
        probabilities: [n, classes].
        labels: [n].
        bins: Number of bins.
        weights: Weights of the rows, [n]; uniform by default.
    """
    confidence = probabilities.max(axis=1)
    gaps = confidence - (probabilities.argmax(axis=1) == labels)
    index = np.minimum((confidence * bins).astype(int), bins - 1)
    weights = np.ones(len(labels)) if weights is None else weights
    return float(np.abs(np.bincount(index, weights=gaps * weights, minlength=bins)).sum() / weights.sum())


def classification_metrics(probabilities: Floats, labels: Labels, threshold: float | None) -> list[pb.Metric]:
    """Computes all metrics of one split, with confidence intervals.

    Args:
        probabilities: [n, classes].
        labels: [n].
        threshold: Threshold of the default operating point on the probability of label 1; None if there is none.
    """
    found = _figures(probabilities, labels, threshold)
    random = np.random.default_rng(_SEED)
    groups = [np.flatnonzero(labels == label) for label in np.unique(labels)]
    resampled = []
    for _ in range(RESAMPLES):
        index = np.concatenate([group[random.integers(0, len(group), len(group))] for group in groups])
        resampled.append(list(_figures(probabilities[index], labels[index], threshold).values()))
    bounds = np.quantile(resampled, [0.025, 0.975], axis=0).T
    return [
        pb.Metric(name=name, value=value, interval=pb.ConfidenceInterval(low=low, high=high, method=_METHOD))
        for (name, value), (low, high) in zip(found.items(), bounds, strict=True)
    ]


def _figures(probabilities: Floats, labels: Labels, threshold: float | None) -> dict[str, float]:
    classes = np.arange(probabilities.shape[1])
    one_hot = labels[:, np.newaxis] == classes
    squares = ((probabilities - one_hot) ** 2).sum(axis=1).mean()
    right = float((probabilities.argmax(axis=1) == labels).mean())
    error = calibration_error(probabilities, labels)
    if len(classes) > 2:
        area = _macro_auroc(probabilities, one_hot)
        return {"auroc_macro": area, "accuracy": right, "expected_calibration_error": error, "brier_score": squares}
    scores = probabilities[:, 1]
    found = {
        "auroc": float(auroc(scores[labels == 1], scores[labels == 0])),
        "accuracy": right,
        "expected_calibration_error": error,
        # For two labels, by convention, of the second one only: half the sum over both.
        "brier_score": squares / 2,
    }
    if threshold is not None:
        sensitivity, specificity = sensitivity_specificity(scores, labels, threshold)
        found["accuracy_at_operating_point"] = float(((scores >= threshold) == labels).mean())
        found["sensitivity_at_operating_point"] = sensitivity
        found["specificity_at_operating_point"] = specificity
    return found


def _macro_auroc(probabilities: Floats, one_hot: NDArray[np.bool_]) -> float:
    """Returns the mean of the one-vs-rest areas of all classes."""
    positives = one_hot.sum(axis=0)
    sums = (rankdata(probabilities, axis=0) * one_hot).sum(axis=0) - positives * (positives + 1) / 2
    return float((sums / (positives * (len(one_hot) - positives))).mean())
