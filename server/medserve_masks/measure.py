"""Sizes, shapes and positions of objects."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from medserve_masks.bands import bands
from medserve_masks.ellipse import ellipse_axes
from medserve_masks.moments import moments
from medserve_masks.perimeter import perimeters

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Objects:
    """Measures of the objects 1 to n, each an array whose first axis is n.

    Lengths are in the unit of the spacing, and areas in its square.

    Attributes:
        boxes: Left, top, width and height in pixels, int64 [n, 4].
        centroids: x and y in pixels, [n, 2]; (0, 0) is the upper left corner of the first pixel.
        areas_px: Number of pixels, int64.
        areas: Areas.
        equivalent_diameters: Diameters of the circles with the same areas.
        major_axes: Lengths of the longer axes of the ellipses with the same second moments.
        minor_axes: Lengths of the shorter axes of these ellipses.
        perimeters: Lengths of the outlines, holes included.
        circularities: 4 pi area / perimeter^2, at most 1: 1 for circles.
        mean_probabilities: Mean probability of the pixels.
        touches_border: Whether a pixel is on the border of the image.
    """

    boxes: NDArray[np.int64]
    centroids: Floats
    areas_px: NDArray[np.int64]
    areas: Floats
    equivalent_diameters: Floats
    major_axes: Floats
    minor_axes: Floats
    perimeters: Floats
    circularities: Floats
    mean_probabilities: Floats
    touches_border: NDArray[np.bool_]


def measure_objects(
    labels: NDArray[np.int32],
    probabilities: NDArray[np.float32],
    spacing: tuple[float, float] = (1.0, 1.0),
    max_objects: int | None = None,
) -> Objects:
    """Measures the objects of a label.

    Args:
        labels: 0 for background and 1, 2, ... for objects, [h, w], as returned by `label_objects`.
        probabilities: Probability of the label, [h, w].
        spacing: Distance between rows and between columns.
        max_objects: Only objects up to this number are measured; all by default.
    """
    count = int(labels.max(initial=0))
    if max_objects is not None:
        count = min(count, max_objects)
    found = moments(labels, count, spacing)
    boxes = _boxes(labels, count)
    right, bottom = boxes[:, 0] + boxes[:, 2], boxes[:, 1] + boxes[:, 3]
    areas: Floats = found.areas * np.float64(spacing[0] * spacing[1])
    major, minor = ellipse_axes(found.covariances)
    lengths = perimeters(labels, count, spacing)
    return Objects(
        boxes=boxes,
        centroids=found.means + 0.5,
        areas_px=found.areas,
        areas=areas,
        equivalent_diameters=np.sqrt(4 * areas / np.pi),
        major_axes=major,
        minor_axes=minor,
        perimeters=lengths,
        circularities=np.minimum(4 * np.pi * areas / lengths**2, 1),
        mean_probabilities=_sums(labels, probabilities, count) / found.areas,
        touches_border=(boxes[:, :2] == 0).any(axis=1) | (right == labels.shape[1]) | (bottom == labels.shape[0]),
    )


def _boxes(labels: NDArray[np.int32], count: int) -> NDArray[np.int64]:
    slices = ndimage.find_objects(labels, max_label=count) if count else []
    boxes = [(x.start, y.start, x.stop - x.start, y.stop - y.start) for y, x in slices]
    return np.array(boxes, np.int64).reshape(-1, 4)


def _sums(labels: NDArray[np.int32], values: NDArray[np.float32], count: int) -> Floats:
    """Returns the sum of the values of each object, [count]."""
    sums = np.zeros(count + 1)
    for band in bands(labels.shape):
        objects = np.minimum(labels[band], count + 1).ravel()
        sums += np.bincount(objects, values[band].ravel(), minlength=count + 2)[:-1]
    return sums[1:]
