"""Figures of classifiers: discrimination, calibration, operating points."""

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata
from sklearn.metrics import accuracy_score, brier_score_loss, roc_auc_score

from medserve_proto.v1 import manifest_pb2 as pb

Floats = NDArray[np.float64]
Labels = NDArray[np.int64]

RESAMPLES = 2000
_METHOD = f"bootstrap, {RESAMPLES} resamples within each class"
# Of the resampling, so that an interval can be recomputed.
_SEED = 0


def auroc(positive: Floats, negative: Floats) -> Floats:
    """Area under the ROC curve as the probability that a positive outscores a negative (Mann & Whitney 1947).

    Args:
        positive: Scores of the positives, [..., p].
        negative: Scores of the negatives, [..., n].

    Returns:
        One area for each leading index, ties counting half.
    """
    p, n = positive.shape[-1], negative.shape[-1]
    ranks = rankdata(np.concatenate([positive, negative], axis=-1), axis=-1)[..., :p]
    area: Floats = (ranks.sum(axis=-1) - p * (p + 1) / 2) / (p * n)
    return area


def calibration_error(probabilities: Floats, labels: Labels, bins: int = 15) -> float:
    """Expected calibration error of the most probable label in equal-width bins (Guo et al. 2017, eq. 3)."""
    confidence = probabilities.max(axis=1)
    correct = probabilities.argmax(axis=1) == labels
    index = np.minimum((confidence * bins).astype(int), bins - 1)
    gaps = np.bincount(index, weights=confidence - correct, minlength=bins)
    return float(np.abs(gaps).sum() / len(labels))


def sensitivity_specificity(scores: Floats, labels: Labels, threshold: float) -> tuple[float, float]:
    """Share of the positives (label 1) at or above the threshold, and of the negatives below it."""
    positive = scores >= threshold
    return float(positive[labels == 1].mean()), float((~positive)[labels == 0].mean())


def operating_points(scores: Floats, labels: Labels, positive_label: str) -> list[pb.OperatingPoint]:
    """Thresholds chosen on validation data: the highest with a sensitivity of at least 0.95, and Youden's (1950).

    A threshold lies halfway between two neighbouring scores, so that no rounding of a score can move a picture over it.

    Args:
        scores: Probability of the positive label, [n].
        labels: 0 or 1, [n].
        positive_label: Its name.
    """
    ordered = np.unique(scores)
    # At 0 everybody is positive.
    thresholds = np.concatenate([[0.0], (ordered[1:] + ordered[:-1]) / 2])
    rates = np.array([sensitivity_specificity(scores, labels, threshold) for threshold in thresholds])
    sensitive = int(np.flatnonzero(rates[:, 0] >= 0.95)[-1])
    youden = int(rates.sum(axis=1).argmax())
    return [
        pb.OperatingPoint(
            name=name,
            positive_label=positive_label,
            threshold=thresholds[index],
            sensitivity=rates[index, 0],
            specificity=rates[index, 1],
            chosen_on="validation",
        )
        for name, index in (("sensitivity-0.95", sensitive), ("youden", youden))
    ]


def classification_metrics(probabilities: Floats, labels: Labels, threshold: float | None) -> list[pb.Metric]:
    """All figures of one split.

    Args:
        probabilities: [n, classes].
        labels: [n].
        threshold: Of the default operating point on the probability of label 1, where there is one.
    """
    classes = np.arange(probabilities.shape[1])
    figures = {
        "accuracy": accuracy_score(labels, probabilities.argmax(axis=1)),
        "expected_calibration_error": calibration_error(probabilities, labels),
        # Single precision leaves sums that are 1 to seven digits; scikit-learn wants more.
        "brier_score": brier_score_loss(
            labels, probabilities / probabilities.sum(axis=1, keepdims=True), labels=classes
        ),
    }
    if threshold is not None:
        scores = probabilities[:, 1]
        sensitivity, specificity = sensitivity_specificity(scores, labels, threshold)
        figures["accuracy_at_operating_point"] = ((scores >= threshold) == labels).mean()
        figures["sensitivity_at_operating_point"] = sensitivity
        figures["specificity_at_operating_point"] = specificity
    area = _auroc_with_interval(probabilities[:, 1], labels) if len(classes) == 2 else _macro(probabilities, labels)
    return [area, *(pb.Metric(name=name, value=value) for name, value in figures.items())]


def _macro(probabilities: Floats, labels: Labels) -> pb.Metric:
    return pb.Metric(name="auroc_macro", value=roc_auc_score(labels, probabilities, multi_class="ovr"))


def _auroc_with_interval(scores: Floats, labels: Labels) -> pb.Metric:
    random = np.random.default_rng(_SEED)
    positive, negative = scores[labels == 1], scores[labels == 0]
    resampled = [random.choice(group, (RESAMPLES, len(group))) for group in (positive, negative)]
    low, high = np.quantile(auroc(*resampled), [0.025, 0.975])
    interval = pb.ConfidenceInterval(low=low, high=high, method=_METHOD)
    return pb.Metric(name="auroc", value=float(auroc(positive, negative)), interval=interval)
