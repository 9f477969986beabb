"""From stored DICOM values to 8 bits: modality, value of interest, polarity; or palette.

Every step maps one stored value to one shown value, so it is computed once for each of the at most 65,536 values that
can be stored, and the pixels are looked up.
"""

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from medserve_images.dicom.elements import decimal, integer, item_of, refusal, text
from medserve_images.dicom.header import Layout
from medserve_images.dicom.luts import LookupTable, Values, read_table
from medserve_images.dicom.pixels import Words
from medserve_images.dicom.window import read_window
from medserve_images.warning import ImageWarning

Pixels = NDArray[np.uint8]


def gray(words: Words, dataset: Dataset, layout: Layout, warnings: list[ImageWarning]) -> Pixels:
    """Shows gray values as a viewer does at first: modality, then value of interest, then polarity.

    The value of interest is the first VOI LUT, else the first window. Where there is neither, unsigned 8-bit values
    without modality transformation are taken as they are, and others are stretched from the least to the greatest of
    the frame, padding aside.

    Args:
        words: The bits stored, each word from 0 to 2 ** layout.stored - 1.
        dataset: The elements that hold for this frame.
        layout: Of the file.
        warnings: Gets what was done to the values, unless they are shown as stored.

    Raises:
        ImageRefused: An element makes no sense.
        TooComplex: An element is too large.
    """
    stored, present = _stored_values(layout), _present(words, layout)
    values = _modality(stored, present, dataset, layout, warnings)
    signed = bool(values.min() < 0)
    by = ""
    if (item := item_of(dataset, "VOILUTSequence")) is not None:
        table = read_table(item, "LUT", values[present], signed=signed)
        _check_range([table], "LUT", warnings)
        shown = table(values) / (2**table.depth - 1)
        by = "its first VOI lookup table"
    elif (window := read_window(dataset)) is not None:
        shown = window(values)
        by = f"its first window (center {window.center:g}, width {window.width:g})"
    elif layout.stored == 8 and not layout.signed and np.array_equal(values, stored):
        shown = values / 255
    else:
        shown_values = values[present & ~_padding(stored, present, dataset, layout)]
        low, high = float(shown_values.min()), float(shown_values.max())
        shown = (values - low) / (high - low or 1)
        by = f"its least and greatest value ({low:g} and {high:g})"
    if by:
        bits = f"from {layout.stored} to 8" if layout.stored != 8 else "to 8"
        warnings.append(ImageWarning("DEPTH_REDUCED", f"brought {bits} bits by {by}"))
    shades = np.rint(np.clip(shown, 0, 1) * 255).astype(np.uint8)
    if _inverted(dataset, layout, warnings):
        shades = 255 - shades
    pixels: Pixels = shades[words]
    return pixels


def color_from_palette(words: Words, dataset: Dataset, layout: Layout, warnings: list[ImageWarning]) -> Pixels:
    """Colors indices by the file's palette (PS3.3 C.7.6.3.1.5); arguments and errors are those of `gray`."""
    stored, present = _stored_values(layout), _present(words, layout)
    names = [f"{color}PaletteColorLookupTable" for color in ("Red", "Green", "Blue")]
    tables = [read_table(dataset, name, stored[present], signed=layout.signed) for name in names]
    _check_range(tables, names[0], warnings)
    shades = np.stack([table(stored) * 255 // (2**table.depth - 1) for table in tables], axis=-1).astype(np.uint8)
    if (depth := max(table.depth for table in tables)) > 8:
        warnings.append(ImageWarning("DEPTH_REDUCED", f"reduced from {depth} to 8 bits"))
    return shades[words]


def _stored_values(layout: Layout) -> Values:
    """Returns the number that each word stands for."""
    numbers = np.arange(1 << layout.stored, dtype=np.float64)
    if layout.signed:  # two's complements
        numbers[1 << (layout.stored - 1) :] -= 1 << layout.stored
    return numbers


def _present(words: Words, layout: Layout) -> NDArray[np.bool_]:
    """Returns which of the possible words the frame has."""
    present = np.zeros(1 << layout.stored, np.bool_)
    present[words] = True
    return present


def _padding(stored: Values, present: NDArray[np.bool_], dataset: Dataset, layout: Layout) -> NDArray[np.bool_]:
    """Returns which words are padding (PS3.3 C.7.5.1.1.2): none where the frame has nothing else."""
    padding = integer(dataset, "PixelPaddingValue", signed=layout.signed)
    if padding is None:
        return np.zeros_like(present)
    limit = integer(dataset, "PixelPaddingRangeLimit", signed=layout.signed)
    low, high = sorted((padding, padding if limit is None else limit))
    found = (stored >= low) & (stored <= high)
    return found if (present & ~found).any() else np.zeros_like(present)


def _modality(
    stored: Values, present: NDArray[np.bool_], dataset: Dataset, layout: Layout, warnings: list[ImageWarning]
) -> Values:
    """Returns values in the modality's units, by table or by slope and intercept (PS3.3 C.11.1)."""
    slope, intercept = decimal(dataset, "RescaleSlope"), decimal(dataset, "RescaleIntercept")
    identity = slope in {None, 1} and intercept in {None, 0}
    if (item := item_of(dataset, "ModalityLUTSequence")) is not None:
        if not identity:
            warnings.append(
                ImageWarning("DEPTH_REDUCED", "its Modality LUT is applied, and not its RescaleSlope and Intercept")
            )
        return read_table(item, "LUT", stored[present], signed=layout.signed)(stored)
    if identity:
        return stored
    if slope is None:
        raise refusal(f"whose RescaleIntercept is {intercept:g}, without RescaleSlope")
    if intercept is None:
        raise refusal(f"whose RescaleSlope is {slope:g}, without RescaleIntercept")
    if slope == 0:
        raise refusal("whose RescaleSlope is 0, expected another number")
    return stored * slope + intercept


def _check_range(tables: list[LookupTable], name: str, warnings: list[ImageWarning]) -> None:
    """Compares the bits that a descriptor gives with those that the entries need: writers often confuse them.

    Raises:
        ImageRefused: Entries of 8 bits are called deeper, and would be black.
    """
    depth, greatest = max(table.depth for table in tables), max(int(table.entries.max()) for table in tables)
    said = f"{name}Descriptor says {depth} bits for each entry, and the greatest is {greatest}"
    if depth > 8 and greatest <= 255:
        raise refusal(f"whose {said}, expected 8 bits or greater entries")
    if depth > 8 and greatest.bit_length() < depth:
        warnings.append(ImageWarning("RANGE_UNUSED", f"its {said}: its shades may be meant to be further apart"))


def _inverted(dataset: Dataset, layout: Layout, warnings: list[ImageWarning]) -> bool:
    """Returns whether the least value is white; where the file contradicts itself, as DCMTK decides."""
    inverted = layout.photometric == "MONOCHROME1"
    shape = text(dataset, "PresentationLUTShape")
    if shape in {"IDENTITY", "INVERSE"} and (shape == "INVERSE") != inverted:
        inverted = not inverted
        warnings.append(
            ImageWarning(
                "COLOR_CONVERTED", f"shown by its PresentationLUTShape {shape}, which contradicts {layout.photometric}"
            )
        )
    elif shape not in {"", "IDENTITY", "INVERSE"}:
        warnings.append(
            ImageWarning("COLOR_CONVERTED", "its PresentationLUTShape is not IDENTITY or INVERSE, and is ignored")
        )
    if item_of(dataset, "PresentationLUTSequence") is not None:
        warnings.append(ImageWarning("COLOR_CONVERTED", "its PresentationLUTSequence is ignored"))
    return inverted
