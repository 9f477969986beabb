"""Occlusion maps: the drop of a probability when a patch of the image is covered (Zeiler & Fergus 2014)."""

import numpy as np
from numpy.typing import NDArray

from medserve_images import Pixels

GRID = 7


def grid(height: int, width: int) -> tuple[int, int]:
    """Returns the number of rows and columns of the map of an image."""
    return min(GRID, height), min(GRID, width)


def cover(image: Pixels) -> Pixels:
    """Covers each patch in turn with the mean of the image; returns uint8 [patches, height, width, channels].

    A patch is centered on its cell of the map, twice as wide and high as the cell, and clipped at the border:
    neighboring patches overlap by half, and the map is aligned with the image.
    """
    height, width, _ = image.shape
    rows, columns = grid(height, width)
    mean = image.mean(axis=(0, 1)).round().astype(np.uint8)
    covered = np.repeat(image[None], rows * columns, axis=0)
    spans = [(down, across) for down in _spans(height, rows) for across in _spans(width, columns)]
    for one, (down, across) in zip(covered, spans, strict=True):
        one[down, across] = mean
    return covered


def probability_drops(whole: float, covered: NDArray[np.generic], height: int, width: int) -> NDArray[np.float32]:
    """Returns the map, float32 [rows, columns], from the probabilities of the original and the covered images."""
    return np.float32(whole) - covered.astype(np.float32).reshape(grid(height, width))


def _spans(size: int, cells: int) -> list[slice]:
    """Returns the pixel range of each patch along one axis."""
    cell = size / cells
    return [slice(max(0, round((index - 0.5) * cell)), round((index + 1.5) * cell)) for index in range(cells)]
