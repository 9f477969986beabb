"""Finding the objects of a label in a model's outputs."""

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from skimage.segmentation import watershed

from medserve_masks.bands import bands, pixel_counts, renumber
from medserve_masks.holes import fill_holes
from medserve_masks.rule import ObjectRule

Floats = NDArray[np.float32]
Labels = NDArray[np.int32]


def label_objects(probabilities: Floats, distance: Floats | None, rule: ObjectRule) -> Labels:
    """Returns the objects of a label, [h, w]: 0 is background, other values are objects, the largest first, from 1.

    Pixels are connected if they share a side. Touching objects are separated by a watershed of the negative distance,
    seeded with the markers; a connected area without a marker is one object. Then objects are discarded, and last,
    holes are filled.

    Args:
        probabilities: Probability of the label, [h, w].
        distance: Distance from the border of the object, [h, w]; only for rules with a marker distance.
        rule: How objects are found.

    Raises:
        ValueError: The rule has a marker distance, but there is no distance.
    """
    labels: Labels
    labels, count = ndimage.label(probabilities >= rule.threshold)
    if rule.marker_distance is not None:
        if distance is None:
            raise ValueError(f"a rule with a marker distance ({rule.marker_distance:g}) needs the output `distance`")
        count = _separate(labels, count, distance, rule.marker_distance)
    count = _sort(labels, count, rule)
    if rule.fill_holes:
        fill_holes(labels, count)
        _sort(labels, count, rule)
    return labels


def _separate(labels: Labels, count: int, distance: Floats, marker_distance: float) -> int:
    """Separates the objects in connected areas with several markers, in place, and returns the highest number.

    Each of these areas is cut out for its watershed, which needs 20 times the memory of its input.
    """
    markers: Labels
    markers, marker_count = ndimage.label((distance >= marker_distance) & (labels > 0))
    owners = np.zeros(marker_count + 1, np.int32)
    for band in bands(labels.shape):
        marked = markers[band] > 0
        owners[markers[band][marked]] = labels[band][marked]
    several = np.bincount(owners[1:], minlength=count + 1) > 1
    # The areas with several markers come first, so that only their boxes are determined.
    numbers = np.zeros(count + 1, np.int32)
    numbers[1 + np.argsort(~several[1:], kind="stable")] = np.arange(1, count + 1)
    renumber(labels, numbers)
    boxes = ndimage.find_objects(labels, max_label=int(several.sum())) if several.any() else []
    for number, box in enumerate(boxes, start=1):
        area = labels[box] == number
        objects = watershed(-distance[box], markers[box], mask=area)  # type: ignore[no-untyped-call]
        labels[box][area] = count + objects[area]
    return count + len(owners) - 1


def _sort(labels: Labels, count: int, rule: ObjectRule) -> int:
    """Numbers the objects that the rule keeps by decreasing area, in place, and returns their number."""
    areas = pixel_counts(labels, count)[1:]
    order = np.argsort(-areas, kind="stable")
    kept = int((areas >= max(rule.min_area, 1)).sum())
    if rule.largest_only:
        kept = min(kept, 1)
    numbers = np.zeros(count + 1, np.int32)
    numbers[1 + order[:kept]] = np.arange(1, kept + 1)
    renumber(labels, numbers)
    return kept
