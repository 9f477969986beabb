"""Lookup tables of DICOM files: Modality LUT, VOI LUT and palette color (PS3.3 C.11.1.1 and C.7.6.3.1.5)."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from medserve_images.dicom.elements import byte_order, bytes_of, raw_element, refusal, words
from medserve_images.dicom.segments import expand

Values = NDArray[np.float64]
Entries = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class LookupTable:
    """A table that maps integers starting at `first`; values below and above map to its first and last entry."""

    first: int
    entries: Entries
    depth: int
    """Bits per entry."""

    def __call__(self, values: Values) -> Values:
        """Maps values, which are rounded to integers."""
        places = np.clip(np.rint(values) - self.first, 0, len(self.entries) - 1).astype(np.int64)
        found: Values = self.entries[places].astype(np.float64)
        return found


def read_table(dataset: Dataset, name: str, present: Values, *, signed: bool) -> LookupTable:
    """Reads a lookup table.

    Args:
        dataset: The item or dataset that contains it.
        name: Its keyword without Descriptor or Data: "LUT", or e.g. "RedPaletteColorLookupTable".
        present: The values of the frame that will be mapped.
        signed: Whether these values can be negative. This determines the sign of the first value mapped (PS3.3
            C.11.1.1.1, C.11.2.1.1), regardless of the value representation in the file, on which writers disagree.

    Raises:
        ImageRefused: The table is missing or inconsistent, or the sign of its first value mapped is ambiguous.
        TooComplex: The table is too large.
    """
    descriptor = words(dataset, f"{name}Descriptor")
    if descriptor is None or len(descriptor) != 3:
        count = 0 if descriptor is None else len(descriptor)
        raise refusal(f"whose {name}Descriptor has {count} values, expected 3")
    length, first, depth = (int(number) for number in descriptor)
    if not 8 <= depth <= 16:
        raise refusal(f"whose {name}Descriptor specifies {depth} bits per entry, expected 8 to 16")
    length = length or 65536
    return LookupTable(
        first=_first(f"{name}Descriptor", first, length, present, signed=signed),
        entries=_entries(dataset, name, length, depth),
        depth=depth,
    )


def _first(keyword: str, word: int, length: int, present: Values, *, signed: bool) -> int:
    """Returns the first value mapped; refuses it if the table applies to the frame only with the opposite sign."""

    def applies(first: int) -> bool:
        whole = np.rint(present)
        return bool(((whole >= first) & (whole < first + length)).any())

    negative = word - 65536
    first, other = (negative, word) if signed else (word, negative)
    if word >= 32768 and not applies(first) and applies(other):
        raise refusal(
            f"whose {keyword} maps {length} values starting at {first}, none of which the frame has; it has some "
            f"starting at {other}, but values {'can' if signed else 'cannot'} be negative before this step"
        )
    return first if word >= 32768 else word


def _entries(dataset: Dataset, name: str, length: int, depth: int) -> Entries:
    keyword = f"{name}Data"
    entries = _stored(dataset, keyword, length)
    if entries is None:
        keyword = f"Segmented{keyword}"
        segments = _stored(dataset, keyword, None, wide=depth > 8) if name != "LUT" else None
        if segments is None:
            raise refusal(f"without {name}Data")
        entries = expand(segments, length, 2 if depth > 8 else 1, keyword)
    maximum = int(entries.max())
    if maximum >= 1 << depth:
        raise refusal(f"whose {keyword} has a maximum of {maximum}, expected {depth} bits as in its descriptor")
    return entries


def _stored(dataset: Dataset, keyword: str, length: int | None, *, wide: bool = False) -> Entries | None:
    """Returns the numbers of an element; 8-bit numbers are packed in 16-bit words, the first in the low byte.

    Args:
        dataset: The item or dataset that contains it.
        keyword: Keyword of the element.
        length: Number of entries, which determines their width; None if unknown.
        wide: Whether they have 16 bits, if `length` is unknown.
    """
    if (element := raw_element(dataset, keyword)) is None:
        return None
    data = bytes_of(element, keyword)
    if length is not None and len(data) not in {2 * length, length + length % 2}:
        raise refusal(
            f"whose {keyword} has {len(data)} bytes, expected {2 * length} or {length + length % 2} "
            f"for {length} entries of 16 or 8 bits"
        )
    if len(data) % 2:
        raise refusal(f"whose {keyword} has {len(data)} bytes, expected an even number")
    if wide or (length is not None and len(data) == 2 * length):
        return np.frombuffer(data, f"{byte_order(element, keyword)}u2").astype(np.int64)
    packed = np.frombuffer(data, np.uint8)
    if not element.is_little_endian and element.VR not in {"OB", "UN"}:
        packed = packed.reshape(-1, 2)[:, ::-1].ravel()
    return packed[:length].astype(np.int64)
