"""Overlapping tiles, in which large images are segmented."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]


class Tiles:
    """Tiles of one size that cover an image, and the blending of their outputs.

    Neighbors overlap by at least three margins. Outputs in the margin of a tile, where the network lacks context, have
    the weight 0; it rises linearly to 1 over the next margin. At the border of the image it is 1. This is MONAI's
    sliding window inference with a trapezoidal importance map. Tiles start at multiples of the stride, so that strided
    networks compute the same for a pixel in every tile.

    Args:
        height: Height of the image.
        width: Width of the image.
        stride: Height and width of a tile are multiples of this number.
        max_side: Maximum height and width of a tile.
        margin: Width of the frame of a tile in which outputs are not used, in pixels.

    Attributes:
        size: Height and width of each tile.

    Raises:
        ValueError: `max_side` is not a multiple of the stride, or too small for the margin.
    """

    def __init__(self, height: int, width: int, *, stride: int, max_side: int, margin: int) -> None:
        least = stride + 3 * margin
        if max_side % stride or max_side < least:
            raise ValueError(f"max_side is {max_side}; expected a multiple of the stride {stride}, {least} or more")
        self._rows, self._columns = (_axis(extent, stride, max_side, margin) for extent in (height, width))
        self.size = self._rows.side, self._columns.side

    def __len__(self) -> int:
        """Returns the number of tiles."""
        return len(self._rows.starts) * len(self._columns.starts)

    def cut(self, image: NDArray[np.uint8], index: int) -> NDArray[np.uint8]:
        """Returns a tile, [tile height, tile width, channels], padded by reflection where it exceeds the image.

        Args:
            image: [height, width, channels].
            index: Number of the tile, from 0.
        """
        part = image[self._place(index)]
        height, width = self.size
        missing = [(0, height - part.shape[0]), (0, width - part.shape[1]), (0, 0)]
        return np.pad(part, missing, mode="reflect")

    def blend(self, result: Floats, outputs: Floats, index: int) -> None:
        """Adds the outputs of a tile to those of the image, in place.

        Args:
            result: Outputs of the image, [labels, height, width]: zeros before the first tile, complete after the last.
            outputs: [labels, tile height, tile width].
            index: Number of the tile, from 0.
        """
        row, column = divmod(index, len(self._columns.starts))
        part = result[:, *self._place(index)]
        height, width = part.shape[1:]
        weights = np.outer(self._rows.weights[row], self._columns.weights[column])
        part += (outputs * weights)[:, :height, :width]

    def _place(self, index: int) -> tuple[slice, slice]:
        row, column = divmod(index, len(self._columns.starts))
        top, left = self._rows.starts[row], self._columns.starts[column]
        return slice(top, top + self._rows.side), slice(left, left + self._columns.side)


@dataclass(frozen=True, slots=True)
class _Axis:
    """Tiles along one axis: their length, where they start, and their weights, [tiles, side], whose sum is 1."""

    side: int
    starts: list[int]
    weights: Floats


def _axis(extent: int, stride: int, max_side: int, margin: int) -> _Axis:
    side = min(max_side, -(-extent // stride) * stride)
    last = -(-(extent - side) // stride)
    count = 1 + -(-last // ((max_side - 3 * margin) // stride))
    starts = [index * last // max(count - 1, 1) * stride for index in range(count)]
    weights = np.ones((count, side))
    rising = np.clip((np.arange(side) - margin + 0.5) / margin, 0, 1) if margin else np.ones(side)
    weights[1:] *= rising
    weights[:-1] *= rising[::-1]
    total = np.zeros(starts[-1] + side)
    for start, tile in zip(starts, weights, strict=True):
        total[start : start + side] += tile
    shares = [tile / total[start : start + side] for start, tile in zip(starts, weights, strict=True)]
    return _Axis(side, starts, np.array(shares, np.float32))
