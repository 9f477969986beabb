"""Moments of the pixels of objects."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from medserve_masks.bands import bands

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Moments:
    """Moments of n objects.

    Attributes:
        areas: Number of pixels, [n].
        means: Mean column and row, [n, 2], of which the first are 0.
        covariances: Second central moments xx, yy and xy in the squared unit of the spacing, [n, 3].
    """

    areas: NDArray[np.int64]
    means: Floats
    covariances: Floats


def moments(labels: NDArray[np.integer], count: int, spacing: tuple[float, float]) -> Moments:
    """Computes the moments of the objects 1 to `count`.

    Args:
        labels: 0 for background and numbers of objects, [h, w].
        count: Number of objects, each of at least one pixel; higher numbers are ignored.
        spacing: Distance between rows and between columns.
    """
    areas, sums = np.zeros(count + 1, np.int64), np.zeros((5, count + 1))
    for band in bands(labels.shape):
        rows, columns = np.nonzero((labels[band] > 0) & (labels[band] <= count))
        objects = labels[band][rows, columns]
        x, y = columns.astype(np.float64), (rows + band.start).astype(np.float64)
        areas += np.bincount(objects, minlength=count + 1)
        for index, values in enumerate((x, y, x * x, y * y, x * y)):
            sums[index] += np.bincount(objects, values, minlength=count + 1)
    x, y, xx, yy, xy = sums[:, 1:] / areas[1:]
    row, column = spacing
    covariances = [(xx - x * x) * column**2, (yy - y * y) * row**2, (xy - x * y) * row * column]
    return Moments(areas[1:], np.stack([x, y], axis=1), np.stack(covariances, axis=1))
