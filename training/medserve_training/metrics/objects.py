"""Figures of the predicted objects of one image, which are matched with the true objects by their overlap."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from medserve_proto.v1 import manifest_pb2 as pb

Labels = NDArray[np.int32]
Floats = NDArray[np.float64]

# Intersections over union above which a predicted object is a true positive.
THRESHOLDS = tuple(percent / 100 for percent in range(50, 100, 5))


@dataclass(frozen=True, slots=True)
class Match:
    """True and predicted objects of an image.

    Attributes:
        true: Number of true objects.
        predicted: Number of predicted objects.
        ious: Intersection over union of each pair of a true and a predicted object for which it is above 0.5; no object
            is in two pairs.
    """

    true: int
    predicted: int
    ious: Floats


def match(predicted: Labels, true: Labels) -> Match:
    """Matches the objects of an image.

    Args:
        predicted: 0 for background and a number for each object, [h, w].
        true: [h, w].
    """
    pixels = [np.bincount(labels.ravel()) for labels in (predicted, true)]
    inside = (predicted > 0) & (true > 0)
    pairs = predicted[inside].astype(np.int64) * len(pixels[1]) + true[inside]
    numbers, common = np.unique(pairs, return_counts=True)
    first, second = np.divmod(numbers, len(pixels[1]))
    ious = common / (pixels[0][first] + pixels[1][second] - common)
    counts = [int((found[1:] > 0).sum()) for found in pixels]
    return Match(true=counts[1], predicted=counts[0], ious=ious[ious > THRESHOLDS[0]])


def object_figures(found: Match) -> dict[str, float]:
    """Returns the figures of an image.

    A predicted object is a true positive (TP) if its intersection over union (IoU) with a true object is above a
    threshold: 0.5 for `..._50` to 0.95 for `..._95`.

    - `average_precision_...`: TP / (TP + FP + FN); `average_precision` is the mean over the thresholds (Caicedo et al.
      2019, the Data Science Bowl 2018).
    - `f1_...`: 2 TP / (2 TP + FP + FN).
    - `panoptic_quality`: the sum of the IoU of true positives, divided by TP + FP / 2 + FN / 2, at the threshold 0.5
      (Kirillov et al. 2019).
    - `relative_count_error`: the absolute difference of the predicted and the true number of objects, divided by the
      true number, or by 1 if that is 0.

    An image without true and predicted objects has the error 0, and 1 for the other figures.
    """
    total = found.true + found.predicted
    matched = (found.ious[:, np.newaxis] > THRESHOLDS).sum(axis=0)
    precision = matched / (total - matched) if total else np.ones(len(THRESHOLDS))
    f1 = 2 * matched / total if total else np.ones(len(THRESHOLDS))
    names = [f"{100 * threshold:.0f}" for threshold in THRESHOLDS]
    return {
        "average_precision": float(precision.mean()),
        **{f"average_precision_{name}": float(value) for name, value in zip(names, precision, strict=True)},
        **{f"f1_{name}": float(value) for name, value in zip(names, f1, strict=True)},
        "panoptic_quality": 2 * float(found.ious.sum()) / total if total else 1.0,
        "relative_count_error": abs(found.predicted - found.true) / max(found.true, 1),
    }


def count_error(predicted: NDArray[np.int64], true: NDArray[np.int64]) -> pb.CountError:
    """Returns the range of the ratio of the true to the predicted number of objects in the middle 90 % of the images.

    The range is that of the images with predicted objects; the coverage is the fraction of all images in it.

    Args:
        predicted: Number of objects in each image, [n].
        true: [n].
    """
    counted = predicted > 0
    ratios = true[counted] / predicted[counted]
    low, high = np.quantile(ratios, 0.05, method="lower"), np.quantile(ratios, 0.95, method="higher")
    covered = true == 0
    covered[counted] = (ratios >= low) & (ratios <= high)
    return pb.CountError(low_ratio=low, high_ratio=high, coverage=covered.mean())
