"""Chooses the thresholds and the errors of a segmentation model on its validation split."""

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from medserve_masks import ObjectRule, ellipse_circumference, label_objects
from medserve_proto.v1 import manifest_pb2 as pb
from medserve_training.data.masks.image import MaskedImages
from medserve_training.export.segmentation.maps import Maps
from medserve_training.metrics.objects import average_precision, match_objects
from medserve_training.metrics.overlap import dice

THRESHOLDS = (0.3, 0.4, 0.5, 0.6)
MARKER_DISTANCES = (0.3, 0.4, 0.5, 0.6)
# The first is used while the other values are chosen.
MINIMUM_AREAS = (15, 5, 30)
# Precision at these overlaps is averaged: at 0.5 alone, masks that are too large or too small are not detected.
OVERLAPS = (0.5, 0.6, 0.7)
# Fraction of the validation images whose true count is within the interval.
COVERAGE = 0.9

Labels = NDArray[np.int32]


def choose_rule(label: pb.SegmentedLabel, index: int, images: MaskedImages, maps: Sequence[Mapping[str, Maps]]) -> None:
    """Sets the threshold, and for touching objects the marker distance and minimum area, with the best mean score.

    The score is the average precision for touching objects, else the Dice coefficient, averaged over the images of
    each kind, and then over the kinds, since these may differ much in number.

    Args:
        label: Receives the values.
        index: Its index in the outputs.
        images: The validation split.
        maps: The outputs for each image.
    """
    separates = "distance" in maps[0]
    score: Callable[[Labels, Labels], float] = _precision if separates else _dice
    kinds = np.array([image.kind for image in images])

    def mean_score(rule: ObjectRule) -> float:
        scores = np.array(
            [
                score(image.labels[index], find_objects(one, index, rule))
                for image, one in zip(images, maps, strict=True)
            ]
        )
        return float(np.mean([scores[kinds == kind].mean() for kind in np.unique(kinds)]))

    area = MINIMUM_AREAS[0] if separates else 0
    markers = MARKER_DISTANCES if separates else (None,)
    best = max(
        (
            ObjectRule(threshold, marker, area, label.largest_only, label.fill_holes)
            for threshold, marker in itertools.product(THRESHOLDS, markers)
        ),
        key=mean_score,
    )
    if separates:
        best = max((replace(best, min_area=area) for area in MINIMUM_AREAS), key=mean_score)
    label.threshold, label.min_area_px, label.chosen_on = best.threshold, best.min_area, "validation"
    if best.marker_distance is not None:
        label.marker_distance = best.marker_distance


def find_objects(maps: Mapping[str, Maps], index: int, rule: ObjectRule) -> Labels:
    """Returns the objects of a label in the outputs for an image, int32 [h, w]."""
    distance = maps["distance"][index] if "distance" in maps else None
    return label_objects(maps["probabilities"][index], distance, rule)


def _precision(truth: Labels, found: Labels) -> float:
    matches = match_objects(truth, found)
    return float(np.mean([average_precision(matches, overlap) for overlap in OVERLAPS]))


def _dice(truth: Labels, found: Labels) -> float:
    return dice(truth > 0, found > 0)


def choose_count_error(label: pb.SegmentedLabel, index: int, images: MaskedImages, found: Sequence[Labels]) -> None:
    """Sets the interval of the true count relative to the count, from quantiles over the images with objects.

    If no objects were found in any image, the interval is left unset.
    """
    label.ClearField("count_error")
    counts = np.array([labels.max() for labels in found])
    if not counts.any():
        return
    true = np.array([len(np.unique(image.labels[index])) - 1 for image in images])
    ratios = (true / counts.clip(min=1))[counts > 0]
    low, high = np.quantile(ratios, [(1 - COVERAGE) / 2, (1 + COVERAGE) / 2])
    label.count_error.low_ratio, label.count_error.high_ratio = min(low, 1.0), max(high, 1.0)
    label.count_error.coverage = COVERAGE


def choose_offset(images: MaskedImages, found: Sequence[Labels]) -> float:
    """Returns the mean difference of the reference from the circumference of the largest object, in pixels.

    It corrects masks that are systematically too large, such as those that include a drawn outline.

    Args:
        images: The validation split, with spacing and reference.
        found: The objects found in each image; those without any are not used.
    """
    differences = []
    for image, labels in zip(images, found, strict=True):
        assert image.spacing is not None and image.reference is not None  # noqa: S101, PT018 - checked when read
        if (circumference := measured_circumference(labels, image.spacing, 0.0)) is not None:
            differences.append((image.reference - circumference) / _pixel(image.spacing))
    return float(np.mean(differences)) if differences else 0.0


def measured_circumference(labels: Labels, spacing: tuple[float, float], offset_px: float) -> float | None:
    """Returns the circumference of the largest object in mm, corrected by the offset; None without objects."""
    if not labels.any():
        return None
    return ellipse_circumference(labels == 1, spacing) + offset_px * _pixel(spacing)


def _pixel(spacing: tuple[float, float]) -> float:
    """Returns the side of a square with the area of a pixel, as a server does."""
    return math.sqrt(spacing[0] * spacing[1])
