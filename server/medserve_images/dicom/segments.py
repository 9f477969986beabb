"""Segmented palettes (PS3.3 C.7.9.2): tables encoded as discrete, linear and indirect segments."""

import numpy as np
from numpy.typing import NDArray

from medserve_images.dicom.elements import refusal

DISCRETE, LINEAR, INDIRECT = 0, 1, 2


def expand(data: NDArray[np.int64], length: int, width: int, keyword: str) -> NDArray[np.int64]:
    """Expands segments to the entries of a table.

    Each segment adds at least one entry, and there are at most 65,536, which bounds the time.

    Args:
        data: The segments.
        length: Number of entries in the table.
        width: Bytes per number in the file.
        keyword: Keyword of the element, for errors.

    Raises:
        ImageRefused: The segments are invalid, or expand to a different number of entries.
    """
    numbers: list[int] = data.tolist()
    table: list[int] = []
    position = 0
    while position + 2 <= len(numbers) and len(table) < length:
        start, count = position, 1
        if numbers[position] == INDIRECT:
            start, count = _copied(numbers, position, width, keyword)
        for _ in range(count):
            entries, start = _segment(numbers, start, table[-1] if table else None, keyword)
            table += entries
            if len(table) > length:
                raise refusal(f"whose {keyword} has more than the {length} entries in its descriptor")
        position = position + 2 + 4 // width if numbers[position] == INDIRECT else start
    if len(table) != length:
        raise refusal(f"whose {keyword} has {len(table)} entries, expected {length} as in its descriptor")
    if any(numbers[position:]):  # zeros are padding
        raise refusal(f"whose {keyword} has more than the {length} entries in its descriptor")
    return np.array(table, np.int64)


def _segment(numbers: list[int], position: int, last: int | None, keyword: str) -> tuple[list[int], int]:
    """Returns the entries of a discrete or linear segment, given the last entry, and the start of the next segment."""
    if position + 2 > len(numbers):
        raise refusal(f"whose {keyword} is truncated")
    opcode, count = numbers[position : position + 2]
    position += 2
    if opcode not in {DISCRETE, LINEAR}:
        raise refusal(f"whose {keyword} has a segment of type {opcode}, expected 0, 1 or 2, and no nested 2")
    values = numbers[position : position + (count if opcode == DISCRETE else 1)]
    if not count or len(values) < (count if opcode == DISCRETE else 1):
        raise refusal(f"whose {keyword} has a segment of {count} entries, with {len(values)} values")
    position += len(values)
    if opcode == DISCRETE:
        return values, position
    if last is None:
        raise refusal(f"whose {keyword} begins with a linear segment, expected a discrete segment before it")
    slope = last + (values[0] - last) * np.arange(1, count + 1) / count
    return np.rint(slope).astype(int).tolist(), position


def _copied(numbers: list[int], position: int, width: int, keyword: str) -> tuple[int, int]:
    """Returns the start and the number of the segments that an indirect segment copies."""
    count = numbers[position + 1]
    offset = numbers[position + 2 : position + 2 + 4 // width]  # in bytes, the least significant number first
    start, rest = divmod(sum(number << (8 * width * place) for place, number in enumerate(offset)), width)
    if not count or rest or len(offset) < 4 // width:
        raise refusal(f"whose {keyword} has an indirect segment of {count} segments from byte {start * width + rest}")
    return start, count
