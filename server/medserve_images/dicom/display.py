"""From stored DICOM values to 8 bits: modality transformation, value of interest, palette.

Every step maps one stored value to one shown value, so it is computed once for each of the at most 65,536 values that
can be stored, and the pixels are looked up. pydicom's own `apply_voi` and `apply_color_lut` are not used: they keep
the place in a table of 8-bit entries in 8 bits, which is wrong beyond the 256th.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.multival import MultiValue

from medserve_images.dicom.header import Layout, item_of, value_of

# Beyond it numbers make no sense, and computing with them would overflow.
LARGEST = 1e30
LEAST_WIDTH = 1e-30

Words = NDArray[np.uint8] | NDArray[np.uint16]
Values = NDArray[np.float64]
Pixels = NDArray[np.uint8]


def gray(words: Words, dataset: Dataset, layout: Layout) -> tuple[Pixels, str | None]:
    """Shows grey values as a viewer does at first: modality, then value of interest, then polarity.

    The value of interest is the first VOI LUT, else the first window. Where there is neither, unsigned 8-bit values
    without modality transformation are taken as they are, and others are stretched from the least to the greatest of
    the frame, padding aside.

    Args:
        words: the bits stored, each word from 0 to 2 ** layout.stored - 1.
        dataset: the elements that hold for this frame.
        layout: of the file.

    Returns:
        Pixels, and how they were brought to 8 bits; None where they are as stored.

    Raises:
        ValueError, and whatever pydicom raises: an element makes no sense.
    """
    stored = _stored_values(layout)
    values, changed = _modality(stored, dataset, layout)
    center, width = value_of(dataset, "WindowCenter"), value_of(dataset, "WindowWidth")
    if (item := item_of(dataset, "VOILUTSequence", 0)) is not None:
        shown = _look_up(item, "LUT", np.rint(values), layout) / (2 ** _descriptor(item, "LUTDescriptor")[2] - 1)
        by = "its first VOI lookup table"
    elif center is not None and width is not None:
        center, width = _first(center), _first(width)
        shown = window(values, center, width, str(value_of(dataset, "VOILUTFunction") or "LINEAR"))
        by = f"its first window (center {center:g}, width {width:g})"
    elif layout.stored == 8 and not layout.signed and not changed:
        shown, by = values / 255, ""
    else:
        present = values[_present(words, stored, dataset)]
        low, high = float(present.min()), float(present.max())
        shown = (values - low) / (high - low or 1)
        by = f"its least and greatest value ({low:g} and {high:g})"
    table = np.rint(np.clip(shown, 0, 1) * 255).astype(np.uint8)
    if layout.photometric == "MONOCHROME1":
        table = 255 - table
    return table[words], f"brought from {layout.stored} to 8 bits by {by}" if by else None


def color_from_palette(words: Words, dataset: Dataset, layout: Layout) -> tuple[Pixels, str | None]:
    """Colours indices by the file's palette (PS3.3 C.7.6.3.1.5); arguments and errors are those of `gray`."""
    stored = _stored_values(layout)
    names = [f"{color}PaletteColorLookupTable" for color in ("Red", "Green", "Blue")]
    depths = [_descriptor(dataset, f"{name}Descriptor")[2] for name in names]
    channels = [
        _look_up(dataset, name, stored, layout) * 255 // (2**depth - 1)
        for name, depth in zip(names, depths, strict=True)
    ]
    table = np.stack(channels, axis=-1).astype(np.uint8)
    return table[words], f"reduced from {max(depths)} to 8 bits" if max(depths) > 8 else None


def window(values: Values, center: float, width: float, function: str) -> Values:
    """Maps values to 0 to 1; a linear window also gives values beyond (PS3.3 C.11.2.1.2 and C.11.2.1.3).

    Raises:
        ValueError: the width or the function is not one of the standard's.
    """
    if width < (1 if function == "LINEAR" else LEAST_WIDTH):
        raise ValueError("the window has no width")
    match function:
        case "LINEAR" if width == 1:
            return (values > center - 0.5).astype(np.float64)
        case "LINEAR":
            return (values - (center - 0.5)) / (width - 1) + 0.5
        case "LINEAR_EXACT":
            return (values - center) / width + 0.5
        case "SIGMOID":
            return 1 / (1 + np.exp(np.clip(-4 * (values - center) / width, -50, 50)))
    raise ValueError("the VOI LUT function is unknown")


def _stored_values(layout: Layout) -> Values:
    """The number that each word stands for."""
    numbers = np.arange(1 << layout.stored, dtype=np.float64)
    if layout.signed:  # two's complements
        numbers[1 << (layout.stored - 1) :] -= 1 << layout.stored
    return numbers


def _modality(stored: Values, dataset: Dataset, layout: Layout) -> tuple[Values, bool]:
    """Values in the modality's units, by table or by slope and intercept, and whether they differ."""
    if (item := item_of(dataset, "ModalityLUTSequence", 0)) is not None:
        return _look_up(item, "LUT", stored, layout), True
    slope, intercept = value_of(dataset, "RescaleSlope"), value_of(dataset, "RescaleIntercept")
    slope, intercept = 1 if slope is None else _first(slope), 0 if intercept is None else _first(intercept)
    if slope == 0:
        raise ValueError("a slope of 0 leaves nothing to see")
    return stored * slope + intercept, (slope, intercept) != (1, 0)


def _first(value: Any) -> float:  # noqa: ANN401 - whatever the file holds
    """The only number of an element, or the first of several.

    Raises:
        ValueError: it is no usable number.
    """
    number = float(value[0] if isinstance(value, MultiValue) else value)
    if not abs(number) < LARGEST:
        raise ValueError("a number is too large, or none")
    return number


def _present(words: Words, stored: Values, dataset: Dataset) -> NDArray[np.bool_]:
    """Which of the possible values the frame has, padding aside unless there is nothing else."""
    present = np.zeros(len(stored), np.bool_)
    present[words] = True
    if (padding := value_of(dataset, "PixelPaddingValue")) is None:
        return present
    limit = value_of(dataset, "PixelPaddingRangeLimit")
    low, high = sorted((int(padding), int(padding if limit is None else limit)))
    without = present & ~((stored >= low) & (stored <= high))
    return without if without.any() else present


def _descriptor(item: Dataset, keyword: str) -> tuple[int, int, int]:
    """Entries, first value mapped, and bits of an entry (PS3.3 C.11.1.1).

    Raises:
        ValueError: they make no sense.
    """
    entries, first, depth = (int(number) for number in value_of(item, keyword))
    if not (0 <= entries <= 65535 and 8 <= depth <= 16):
        raise ValueError("the lookup table's descriptor makes no sense")
    return entries or 65536, first, depth


def _look_up(item: Dataset, name: str, values: Values, layout: Layout) -> Values:
    """Maps values by a table; those before and beyond it get its first and last entry."""
    entries, first, depth = _descriptor(item, f"{name}Descriptor")
    data = value_of(item, f"{name}Data")
    if isinstance(data, bytes):  # words, or bytes where there is one for each entry
        word = "<u2" if layout.syntax.is_little_endian else ">u2"
        table = np.frombuffer(data, word if len(data) >= 2 * entries else np.uint8).astype(np.int64)
    else:
        table = np.asarray(data, np.int64) & 0xFFFF
    if len(table) < entries:
        raise ValueError("the lookup table has too few entries")
    places = np.clip(values - first, 0, entries - 1).astype(np.int64)
    found: Values = np.minimum(table[places], 2**depth - 1).astype(np.float64)
    return found
