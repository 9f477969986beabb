"""Agreement of two label images, object by object."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Labels = NDArray[np.int32]


class Matches(NamedTuple):
    """Objects of two label images that overlap.

    Attributes:
        overlaps: Intersection over union of each pair of overlapping objects, [pairs].
        pairs: Index of the true and of the found object of each pair, from 0, [pairs, 2].
        true_areas: Area of each true object, in pixels.
        found_areas: Area of each found object, in pixels.
    """

    overlaps: NDArray[np.float64]
    pairs: NDArray[np.int64]
    true_areas: NDArray[np.int64]
    found_areas: NDArray[np.int64]

    def hits(self, overlap: float) -> NDArray[np.float64]:
        """Returns the overlaps of the pairs above a threshold, which are one to one if it is at least 0.5."""
        return self.overlaps[self.overlaps > overlap]


def match_objects(truth: Labels, found: Labels) -> Matches:
    """Returns the objects that overlap.

    Args:
        truth: Number of the true object at each pixel, 0 for background, [h, w].
        found: Number of the found object.
    """
    areas = [np.bincount(labels.ravel()) for labels in (truth, found)]
    # The index of each number that occurs, from 0.
    places = [np.cumsum(area[1:] > 0) - 1 for area in areas]
    inside = (truth > 0) & (found > 0)
    joint, common = np.unique(truth[inside].astype(np.int64) * len(areas[1]) + found[inside], return_counts=True)
    first, second = np.divmod(joint, len(areas[1]))
    pairs = np.stack([places[0][first - 1], places[1][second - 1]], axis=1)
    true_areas, found_areas = (area[1:][area[1:] > 0] for area in areas)
    union = true_areas[pairs[:, 0]] + found_areas[pairs[:, 1]] - common
    return Matches(common / union, pairs, true_areas, found_areas)


def average_precision(matches: Matches, overlap: float) -> float:
    """Returns TP / (TP + FP + FN) at an overlap, as in the 2018 Data Science Bowl; 1 if both are empty.

    Args:
        matches: Of one image.
        overlap: Threshold on the intersection over union, at least 0.5.
    """
    hits = len(matches.hits(overlap))
    total = len(matches.true_areas) + len(matches.found_areas) - hits
    return hits / total if total else 1.0


def f1_score(matches: Matches, overlap: float) -> float:
    """Returns 2 TP / (2 TP + FP + FN) at an overlap; 1 if both are empty; arguments as above."""
    total = len(matches.true_areas) + len(matches.found_areas)
    return 2 * len(matches.hits(overlap)) / total if total else 1.0


def panoptic_quality(matches: Matches) -> float:
    """Returns the panoptic quality (Kirillov et al. 2019): the overlaps of hits above 0.5 over TP + FP / 2 + FN / 2."""
    total = len(matches.true_areas) + len(matches.found_areas)
    return 2 * float(matches.hits(0.5).sum()) / total if total else 1.0


def count_error(matches: Matches) -> float:
    """Returns the absolute error of the count relative to the true count, or to 1 if that is 0."""
    true, found = len(matches.true_areas), len(matches.found_areas)
    return abs(found - true) / max(true, 1)
