"""Bands of rows, in which large maps are processed.

NumPy converts indices and the input of `bincount` to 8 bytes per element; for a whole map of 4,000 x 4,000 pixels, each
such copy would take 128 MB.
"""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

# Pixels of a band.
_PIXELS = 2**19


def bands(shape: tuple[int, ...]) -> Iterator[slice]:
    """Yields slices that together cover the rows of a map, [h, w], from the top."""
    height, width = shape
    rows = max(_PIXELS // max(width, 1), 1)
    for top in range(0, height, rows):
        yield slice(top, top + rows)


def pixel_counts(labels: NDArray[np.int32], count: int) -> NDArray[np.int64]:
    """Returns the number of pixels of the background and of each object, [count + 1].

    Args:
        labels: 0 for background and 1 to `count` for objects, [h, w].
        count: Number of objects.
    """
    pixels = np.zeros(count + 1, np.int64)
    for band in bands(labels.shape):
        pixels += np.bincount(labels[band].ravel(), minlength=count + 1)
    return pixels


def renumber(labels: NDArray[np.int32], numbers: NDArray[np.int32]) -> None:
    """Replaces each value of a map by `numbers[value]`, in place.

    Args:
        labels: [h, w].
        numbers: [values].
    """
    for band in bands(labels.shape):
        labels[band] = numbers[labels[band]]
