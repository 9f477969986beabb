"""Perimeters of objects, by Crofton's formula."""

import numpy as np
from numpy.typing import NDArray

from medserve_masks.bands import bands

# Neighboring pixels along lines of four directions, as views of a band that starts with the row above it.
_HORIZONTAL = np.s_[1:, 1:], np.s_[1:, :-1]
_VERTICAL = np.s_[1:, :], np.s_[:-1, :]
_FALLING = np.s_[1:, 1:], np.s_[:-1, :-1]
_RISING = np.s_[1:, :-1], np.s_[:-1, 1:]


def perimeters(labels: NDArray[np.int32], count: int, spacing: tuple[float, float]) -> NDArray[np.float64]:
    """Returns the perimeter of each object, holes included, in the unit of the spacing, [count].

    By Crofton's formula, it is half the integral, over all directions, of the distance between parallel lines times the
    number of their intersections with the outline. The lines pass through pixel centers in four directions, each of
    which stands for the angles that are closer to it than to the others (Lehmann & Legland 2012,
    https://hdl.handle.net/10380/3342). The bias for circles is below 0.2 % from a radius of 5 pixels on, and -2 % at 2;
    the length of a straight side is off by -5 to +3 % in square pixels, depending on its angle, and by -10 to +9 % in
    pixels that are twice as long as wide.

    Args:
        labels: 0 for background and numbers of objects, [h, w].
        count: Number of objects; higher numbers are background.
        spacing: Distance between rows and between columns.
    """
    row, column = spacing
    diagonal, angle = np.hypot(row, column), np.arctan2(row, column)
    steps = np.array([column, row, diagonal, diagonal])
    angles = np.array([angle, np.pi / 2 - angle, np.pi / 4, np.pi / 4])
    lengths: NDArray[np.float64] = (angles * row * column / steps / 2) @ _intersections(labels, count)
    return lengths


def _intersections(labels: NDArray[np.int32], count: int) -> NDArray[np.int64]:
    """Counts the intersections of the outlines with the lines of each direction, [4, count]."""
    found = np.zeros((4, count + 1), np.int64)
    height, width = labels.shape
    for band in bands((height + 1, width)):
        rows = labels[max(band.start - 1, 0) : band.stop]
        rows = np.pad(rows, ((band.start == 0, band.stop > height), (1, 1)))
        rows[rows > count] = 0
        for direction, (here, there) in enumerate((_HORIZONTAL, _VERTICAL, _FALLING, _RISING)):
            outline = rows[here] != rows[there]
            for side in (here, there):
                found[direction] += np.bincount(rows[side][outline], minlength=count + 1)
    return found[:, 1:]
