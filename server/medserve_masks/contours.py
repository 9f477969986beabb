"""Outlines of objects."""

import numpy as np
from numpy.typing import NDArray


def outline(labels: NDArray[np.int32], index: int, box: NDArray[np.int64]) -> NDArray[np.int32]:
    """Returns the corners of the outer outline of one object, as x and y in pixels, [corners, 2].

    The outline runs along the edges of pixels, clockwise from the leftmost corner of the top row, and encloses exactly
    the object's pixels and holes. (0, 0) is the upper left corner of the first pixel.

    Args:
        labels: Objects whose pixels are connected by their sides, [h, w].
        index: The object's number in the labels.
        box: Left, top, width and height of the object; only these pixels are read.
    """
    left, top, width, height = box.tolist()
    inside = np.pad(labels[top : top + height, left : left + width] == index, 1).tobytes()
    row = width + 2
    # A pixel and its upper left corner have the same number. Steps between corners: right, down, left and up; and the
    # offset, from the corner, of the pixel to the right of a step. The pixel to its left is that of the step before.
    steps = (1, row, -1, -row)
    pixels = (0, -1, -row - 1, -row)
    start = inside.index(True)
    corners = [start]
    corner, direction = start + 1, 0
    while corner != start:
        if not inside[corner + pixels[direction]]:
            direction = (direction + 1) % 4
            corners.append(corner)
        elif inside[corner + pixels[direction - 1]]:
            direction = (direction - 1) % 4
            corners.append(corner)
        corner += steps[direction]
    y, x = np.divmod(np.array(corners, np.int32), row)
    return np.stack([x + left - 1, y + top - 1], axis=1)
