"""COCO's compressed run-length encoding of masks.

The lengths of the runs along columns, alternately of background and object, are written in base 32, the lowest digit
first. Each digit is a character, from "0" on, with 32 added if another digit follows. From the fourth run on, the
difference from the run before the last is written instead, as a two's complement. See `rleToString` in
https://github.com/cocodataset/cocoapi/blob/master/common/maskApi.c.
"""

import numpy as np
from numpy.typing import NDArray

_DIGITS = np.arange(8)  # enough for 2^39 pixels


def encode(labels: NDArray[np.int32], index: int, box: NDArray[np.int64]) -> str:
    """Returns the mask of one object: the field `counts` of COCO's format.

    Args:
        labels: [h, w].
        index: The object's number in the labels.
        box: Left, top, width and height of the object; only these pixels are read.
    """
    left, top, width, height = box.tolist()
    mask = labels[top : top + height, left : left + width] == index
    column, row = np.nonzero(np.diff(mask.T, axis=1, prepend=False, append=False))
    changes, times = np.unique((left + column) * labels.shape[0] + top + row, return_counts=True)
    # A run that reaches from one column into the next has an end and a start in the same place.
    runs = np.diff(changes[times == 1], prepend=0, append=labels.size)
    return _compress(runs if runs[-1] else runs[:-1])


def decode(counts: str, height: int, width: int) -> NDArray[np.bool_]:
    """Returns the mask, [height, width].

    Args:
        counts: As returned by `encode`.
        height: Height of the image.
        width: Width of the image.

    Raises:
        ValueError: The text does not describe a mask of this size.
    """
    runs: list[int] = []
    value = shift = 0
    digits = [ord(character) - ord("0") for character in counts]
    for digit in digits:
        value |= (digit & 31) << shift
        shift += 5
        if not digit & 32:
            value -= (digit & 16) << (shift - 4)
            runs.append(value + (runs[-2] if len(runs) > 2 else 0))
            value = shift = 0
    if not set(digits) <= set(range(64)) or shift or min(runs, default=0) < 0 or sum(runs) != height * width:
        raise ValueError(f"the run-length encoding is damaged, or not of an image of {height} x {width} pixels")
    return np.repeat(np.arange(len(runs)) % 2 == 1, runs).reshape(width, height).T


def _compress(runs: NDArray[np.int64]) -> str:
    values = runs.copy()
    values[3:] -= runs[1:-2]
    rest = values[:, np.newaxis] >> 5 * _DIGITS
    digits = rest & 31
    # After the last digit, only the sign is left.
    last = (rest >> 5 == -(digits >> 4)).argmax(axis=1)[:, np.newaxis]
    characters = (ord("0") + digits + np.where(last > _DIGITS, 32, 0))[last >= _DIGITS]
    return bytes(characters.tolist()).decode()
