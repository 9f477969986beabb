"""The DICOM grayscale display pipeline from stored values to 8 bits (modality, VOI, polarity), and palette color.

Each step maps one stored value to one displayed value, so it is computed once for each of the at most 65,536 possible
stored values, and the pixels are looked up.
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
    """Converts stored values to 8-bit gray like the default display of a viewer: modality, VOI, then polarity.

    The VOI transformation is the first VOI LUT, else the first window. Without either, unsigned 8-bit values without
    modality transformation are unchanged, and other values are scaled from the minimum to the maximum of the frame,
    excluding padding.

    Args:
        words: The stored bits, each word from 0 to 2 ** layout.stored - 1.
        dataset: The elements that apply to this frame.
        layout: The pixel layout of the file.
        warnings: Receives a warning about each conversion.

    Raises:
        ImageRefused: An element is invalid.
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
        by = f"its minimum and maximum ({low:g} and {high:g})"
    if by:
        bits = f"from {layout.stored} to 8" if layout.stored != 8 else "to 8"
        warnings.append(ImageWarning("DEPTH_REDUCED", f"converted {bits} bits by {by}"))
    shades = np.rint(np.clip(shown, 0, 1) * 255).astype(np.uint8)
    if _inverted(dataset, layout, warnings):
        shades = 255 - shades
    pixels: Pixels = shades[words]
    return pixels


def color_from_palette(words: Words, dataset: Dataset, layout: Layout, warnings: list[ImageWarning]) -> Pixels:
    """Maps indices to colors with the file's palette (PS3.3 C.7.6.3.1.5); arguments and errors are those of `gray`."""
    stored, present = _stored_values(layout), _present(words, layout)
    names = [f"{color}PaletteColorLookupTable" for color in ("Red", "Green", "Blue")]
    tables = [read_table(dataset, name, stored[present], signed=layout.signed) for name in names]
    _check_range(tables, names[0], warnings)
    shades = np.stack([table(stored) * 255 // (2**table.depth - 1) for table in tables], axis=-1).astype(np.uint8)
    if (depth := max(table.depth for table in tables)) > 8:
        warnings.append(ImageWarning("DEPTH_REDUCED", f"reduced from {depth} to 8 bits"))
    return shades[words]


def _stored_values(layout: Layout) -> Values:
    """Returns the numeric value of each possible word."""
    numbers = np.arange(1 << layout.stored, dtype=np.float64)
    if layout.signed:  # two's complement
        numbers[1 << (layout.stored - 1) :] -= 1 << layout.stored
    return numbers


def _present(words: Words, layout: Layout) -> NDArray[np.bool_]:
    """Returns which of the possible words occur in the frame."""
    present = np.zeros(1 << layout.stored, np.bool_)
    present[words] = True
    return present


def _padding(stored: Values, present: NDArray[np.bool_], dataset: Dataset, layout: Layout) -> NDArray[np.bool_]:
    """Returns which words are padding (PS3.3 C.7.5.1.1.2); none if the frame consists only of padding."""
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
    """Applies the modality transformation, by lookup table or by slope and intercept (PS3.3 C.11.1)."""
    slope, intercept = decimal(dataset, "RescaleSlope"), decimal(dataset, "RescaleIntercept")
    identity = slope in {None, 1} and intercept in {None, 0}
    if (item := item_of(dataset, "ModalityLUTSequence")) is not None:
        if not identity:
            warnings.append(
                ImageWarning(
                    "ELEMENT_IGNORED", "its Modality LUT is applied; its RescaleSlope and Intercept are ignored"
                )
            )
        return read_table(item, "LUT", stored[present], signed=layout.signed)(stored)
    if identity:
        return stored
    if slope is None:
        raise refusal(f"whose RescaleIntercept is {intercept:g}, without RescaleSlope")
    if intercept is None:
        raise refusal(f"whose RescaleSlope is {slope:g}, without RescaleIntercept")
    if slope == 0:
        raise refusal("whose RescaleSlope is 0, expected a nonzero number")
    return stored * slope + intercept


def _check_range(tables: list[LookupTable], name: str, warnings: list[ImageWarning]) -> None:
    """Compares the bits in a descriptor with those that the entries need, since writers often get them wrong.

    Raises:
        ImageRefused: The descriptor declares more than 8 bits for 8-bit entries, so that the image would be black.
    """
    depth, maximum = max(table.depth for table in tables), max(int(table.entries.max()) for table in tables)
    finding = f"{name}Descriptor specifies {depth} bits per entry, but the maximum is {maximum}"
    if depth > 8 and maximum <= 255:
        raise refusal(f"whose {finding}, expected 8 bits or larger entries")
    if depth > 8 and maximum.bit_length() < depth:
        warnings.append(ImageWarning("RANGE_UNUSED", f"its {finding}: a wider range of shades may be intended"))


def _inverted(dataset: Dataset, layout: Layout, warnings: list[ImageWarning]) -> bool:
    """Returns whether the minimum is displayed as white; contradictions in the file are resolved as in DCMTK."""
    inverted = layout.photometric == "MONOCHROME1"
    shape = text(dataset, "PresentationLUTShape")
    if shape in {"IDENTITY", "INVERSE"} and (shape == "INVERSE") != inverted:
        inverted = not inverted
        warnings.append(
            ImageWarning(
                "ELEMENT_IGNORED",
                f"displayed with its PresentationLUTShape {shape}, which contradicts {layout.photometric}",
            )
        )
    elif shape not in {"", "IDENTITY", "INVERSE"}:
        warnings.append(
            ImageWarning("ELEMENT_IGNORED", "its PresentationLUTShape is neither IDENTITY nor INVERSE, and is ignored")
        )
    if item_of(dataset, "PresentationLUTSequence") is not None:
        warnings.append(ImageWarning("ELEMENT_IGNORED", "its PresentationLUTSequence is ignored"))
    return inverted
