"""Occlusion maps: how far a probability falls where a patch of the picture is covered (Zeiler & Fergus 2014)."""

import numpy as np
from numpy.typing import NDArray

from medserve_images import Pixels

GRID = 7


def grid(height: int, width: int) -> tuple[int, int]:
    """Rows and columns of the map of a picture."""
    return min(GRID, height), min(GRID, width)


def cover(picture: Pixels) -> Pixels:
    """The picture with each of the map's patches covered by its mean, uint8 [patches, height, width, channels].

    A patch is twice as wide and high as its cell of the map and in the middle of it, cut off at the border: neighbours
    overlap by half, and the map lies exactly over the picture.
    """
    height, width, _ = picture.shape
    rows, columns = grid(height, width)
    mean = picture.mean(axis=(0, 1)).round().astype(np.uint8)
    covered = np.repeat(picture[None], rows * columns, axis=0)
    spans = [(down, across) for down in _spans(height, rows) for across in _spans(width, columns)]
    for one, (down, across) in zip(covered, spans, strict=True):
        one[down, across] = mean
    return covered


def falls(whole: float, covered: NDArray[np.generic], height: int, width: int) -> NDArray[np.float32]:
    """The map, float32 [rows, columns], from the probabilities of the whole picture and of the covered ones."""
    return np.float32(whole) - covered.astype(np.float32).reshape(grid(height, width))


def _spans(size: int, cells: int) -> list[slice]:
    """Along one side, the pixels of each patch."""
    cell = size / cells
    return [slice(max(0, round((index - 0.5) * cell)), round((index + 1.5) * cell)) for index in range(cells)]
