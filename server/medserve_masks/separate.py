"""Finding the objects of a label in a model's outputs."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from skimage.segmentation import watershed

from medserve_masks.bands import bands, pixel_counts, renumber
from medserve_masks.holes import fill_holes
from medserve_masks.rule import ObjectRule

Floats = NDArray[np.float32]
Labels = NDArray[np.int32]

# Pixels of the box of a group of areas.
_GROUP_PIXELS = 2**18


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
        ValueError: The rule has a marker distance, but `distance` is None.
    """
    labels: Labels
    labels, count = ndimage.label(probabilities >= rule.threshold)
    if rule.marker_distance is not None:
        if distance is None:
            raise ValueError(f"a rule with a marker distance ({rule.marker_distance:g}) needs the output `distance`")
        count = _separate(labels, count, distance, rule.marker_distance, rule.min_area)
    count = _sort(labels, count, rule)
    if rule.fill_holes:
        fill_holes(labels, count)
        _sort(labels, count, rule)
    return labels


def _separate(labels: Labels, count: int, distance: Floats, marker_distance: float, min_area: int) -> int:
    """Separates the objects in connected areas with several markers, in place, and returns the highest number."""
    markers: Labels
    markers, marker_count = ndimage.label((distance >= marker_distance) & (labels > 0))
    owners = np.zeros(marker_count + 1, np.int32)
    for band in bands(labels.shape):
        marked = markers[band] > 0
        owners[markers[band][marked]] = labels[band][marked]
    several = np.bincount(owners[1:], minlength=count + 1) > 1
    several &= pixel_counts(labels, count) >= min_area
    # The areas with several markers come first, so that only their boxes are determined.
    numbers = np.zeros(count + 1, np.int32)
    numbers[1 + np.argsort(~several[1:], kind="stable")] = np.arange(1, count + 1)
    renumber(labels, numbers)
    boxes = ndimage.find_objects(labels, max_label=int(several.sum())) if several.any() else []
    for first, last, box in _groups(boxes):
        mask = (labels[box] >= first) & (labels[box] <= last)
        objects = watershed(-distance[box], markers[box], mask=mask)  # type: ignore[no-untyped-call]
        labels[box][mask] = count + objects[mask]
    return count + len(owners) - 1


def _groups(boxes: list[tuple[slice, slice]]) -> Iterator[tuple[int, int, tuple[slice, slice]]]:
    """Yields the first and the last number of areas to separate together, and their common box.

    A watershed has a fixed cost, and needs many times the memory of its input: a group has a limited box. Only an area
    with a larger box has a larger group, which the areas in its box join, so that no pixel is visited for each of them.
    """
    if not boxes:
        return
    first, common = 1, boxes[0]
    for number, box in enumerate(boxes[1:], start=2):
        joint = _union(common, box)
        if _pixels(joint) > max(_GROUP_PIXELS, _pixels(common)):
            yield first, number - 1, common
            first, joint = number, box
        common = joint
    yield first, len(boxes), common


def _union(one: tuple[slice, slice], other: tuple[slice, slice]) -> tuple[slice, slice]:
    rows, columns = (slice(min(a.start, b.start), max(a.stop, b.stop)) for a, b in zip(one, other, strict=True))
    return rows, columns


def _pixels(box: tuple[slice, slice]) -> int:
    rows, columns = box
    return int((rows.stop - rows.start) * (columns.stop - columns.start))


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
