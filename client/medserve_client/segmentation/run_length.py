"""Masks in COCO's compressed run-length encoding."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_MAX_DIGITS = 7
"""Maximum number of 5-bit digits of a length: 35 bits."""


@dataclass(frozen=True, slots=True)
class RunLength:
    """The mask of an object: the lengths of alternating runs of other pixels and of its pixels, column by column.

    Attributes:
        counts: field `counts` of COCO's format.
        height: height of the image; with `width` the field `size` of COCO's format.
        width: width of the image.
    """

    counts: str
    height: int
    width: int

    def mask(self) -> NDArray[np.bool_]:
        """Returns the mask, bool [height, width].

        Raises:
            ValueError: `counts` does not encode a mask of this size.
        """
        flat = np.zeros(self.width * self.height, np.bool_)
        for start, end in self.runs():
            flat[start:end] = True
        return flat.reshape(self.width, self.height).T

    def runs(self) -> list[tuple[int, int]]:
        """Returns the first index of each run of the object's pixels, and the one after its last.

        The pixel at row y and column x has the index x * height + y.

        Raises:
            ValueError: `counts` does not encode a mask of this size.
        """
        lengths = _lengths(self.counts)
        ends = np.cumsum(lengths)
        if lengths.min() < 0 or ends[-1] != self.height * self.width:
            raise ValueError(f"the run-lengths do not encode a mask of {self.height} x {self.width} pixels")
        return list(zip(ends[0::2].tolist(), ends[1::2].tolist(), strict=False))  # the last run may be of other pixels


def _lengths(counts: str) -> NDArray[np.int64]:
    """Decodes the lengths, as `rleFrString` in https://github.com/cocodataset/cocoapi/blob/master/common/maskApi.c.

    A number is a sequence of 5-bit digits, least significant first, in two's complement. A digit is the character at
    48 plus its value, plus 32 if another one follows. The fourth and later numbers are differences from the length
    two before.
    """
    digits = np.frombuffer(counts.encode(), np.uint8).astype(np.int64) - ord("0")
    is_last = digits & 32 == 0
    if not digits.size or digits.min() < 0 or digits.max() > 63 or not is_last[-1]:
        raise ValueError("the run-lengths are not in COCO's compressed format")
    ends = np.flatnonzero(is_last)
    sizes = np.diff(ends, prepend=-1)
    if sizes.max() > _MAX_DIGITS:
        raise ValueError(f"a run-length has more than {_MAX_DIGITS} digits")
    starts = ends + 1 - sizes
    places = np.arange(digits.size) - np.repeat(starts, sizes)
    numbers = np.add.reduceat((digits & 31) << (5 * places), starts)
    numbers -= (digits[ends] >> 4 & 1) << (5 * sizes)  # the sign
    numbers[1::2] = np.cumsum(numbers[1::2])
    numbers[2::2] = np.cumsum(numbers[2::2])
    return numbers
