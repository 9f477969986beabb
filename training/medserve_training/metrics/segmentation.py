"""Metrics of segmentation: of each image, and of a split with confidence intervals."""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from medserve_proto.v1 import manifest_pb2 as pb
from medserve_training.metrics.objects import (
    average_precision,
    count_error,
    f1_score,
    match_objects,
    panoptic_quality,
)
from medserve_training.metrics.overlap import dice, intersection_over_union, surface_distances

# Thresholds on the intersection over union, whose precision is averaged.
OVERLAPS = tuple(round(0.5 + 0.05 * step, 2) for step in range(10))
RESAMPLES = 2000
# Seed of the bootstrap, fixed for reproducible intervals.
_SEED = 0
# With fewer groups, their resampling says nothing.
_LEAST_GROUPS = 5

Figures = dict[str, float]
Labels = NDArray[np.int32]


def object_figures(truth: Labels, found: Labels) -> Figures:
    """Returns the figures of one image and label with several objects.

    Args:
        truth: Number of the true object at each pixel, 0 for background, [h, w].
        found: Number of the found object.
    """
    matches = match_objects(truth, found)
    precisions = [average_precision(matches, overlap) for overlap in OVERLAPS]
    return {
        "average_precision_50": precisions[0],
        "average_precision_50_95": float(np.mean(precisions)),
        "f1_50": f1_score(matches, 0.5),
        "panoptic_quality": panoptic_quality(matches),
        "dice": dice(truth > 0, found > 0),
        "count_error": count_error(matches),
    }


def area_figures(truth: Labels, found: Labels, spacing: tuple[float, float] | None) -> Figures:
    """Returns the figures of one image and label with one object; arguments as above.

    Args:
        truth: Above 0 inside of the object, [h, w].
        found: Above 0 inside of the found object.
        spacing: Distance between rows and between columns in mm; None to omit distances.
    """
    figures = {
        "dice": dice(truth > 0, found > 0),
        "intersection_over_union": intersection_over_union(truth > 0, found > 0),
    }
    if spacing is not None and (distances := surface_distances(truth > 0, found > 0, spacing)) is not None:
        figures["hausdorff_95_mm"], figures["surface_distance_mm"] = distances
    return figures


def measure_figures(measure: float | None, reference: float) -> Figures:
    """Returns the error of a measure, as a figure of one image; without one, the error is the reference itself."""
    return {"measure_error_mm": abs((measure or 0.0) - reference)}


def summarize(images: Sequence[Mapping[str, float]], groups: Sequence[str]) -> list[pb.Metric]:
    """Returns the metrics of a split: means over the images, but medians and percentiles for some errors.

    Intervals are from a bootstrap over groups, whose images depend on each other; with fewer than five groups, they
    are omitted.

    Args:
        images: The figures of each image.
        groups: The group of each image.
    """
    names = list(dict.fromkeys(name for image in images for name in image))
    samples = _resampled(groups)
    metrics = []
    for name in names:
        values = np.array([image.get(name, np.nan) for image in images])
        for metric, quantile in _statistics(name):
            found = pb.Metric(name=metric, value=_statistic(values, quantile))
            if samples:
                resampled = [_statistic(values[sample], quantile) for sample in samples]
                found.interval.low, found.interval.high = np.nanquantile(resampled, [0.025, 0.975]).tolist()
                found.interval.method = f"bootstrap, {RESAMPLES} resamples of groups"
            metrics.append(found)
    return metrics


def _resampled(groups: Sequence[str]) -> list[NDArray[np.int64]]:
    """Returns the indices of the images of each resample; empty if there are too few groups."""
    names, numbers = np.unique(np.array(groups), return_inverse=True)
    if len(names) < _LEAST_GROUPS:
        return []
    members = [np.flatnonzero(numbers == number) for number in range(len(names))]
    random = np.random.default_rng(_SEED)
    return [
        np.concatenate([members[number] for number in random.integers(0, len(names), len(names))])
        for _ in range(RESAMPLES)
    ]


def _statistic(values: NDArray[np.float64], quantile: float | None) -> float:
    """Returns the mean or a quantile of the values that are not NaN; NaN if all are."""
    known = values[~np.isnan(values)]
    if not len(known):
        return float("nan")
    return float(known.mean() if quantile is None else np.quantile(known, quantile))


def _statistics(name: str) -> list[tuple[str, float | None]]:
    """Returns the metrics of a figure, each with its quantile over the images, or None for the mean."""
    if name == "count_error":
        return [("median_count_error", 0.5)]
    if name == "measure_error_mm":
        return [
            ("mean_absolute_error_mm", None),
            ("median_absolute_error_mm", 0.5),
            ("absolute_error_95_mm", 0.95),
        ]
    return [(name, None)]
