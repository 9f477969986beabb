"""DICOM files in, 8-bit pictures out: decodes one frame, within bounds, as a viewer would show it first.

Nothing of a file gets into an error but numbers that describe its pixels, and what pydicom says of it gets nowhere.
"""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from PIL import Image
from pydicom import uid
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate, get_frame
from pydicom.pixels.decoders.base import get_decoder

from medserve_images.dicom.codecs import PLUGIN, add_plugins, jpeg_header
from medserve_images.dicom.display import Words, color_from_palette, gray
from medserve_images.dicom.header import (
    SYNTAXES,
    BoundedFile,
    Layout,
    TooComplex,
    apply_functional_groups,
    read_elements,
    read_layout,
)
from medserve_images.errors import ImageRefused

add_plugins()


def read_dicom(data: bytes, frame: int, max_pixels: int) -> tuple[Image.Image, str | None]:
    """Decodes one frame to a picture of mode L or RGB, as a viewer would show it first.

    Args:
        data: a whole file, with preamble.
        frame: from 0.
        max_pixels: of the frame, checked before anything is decoded.

    Returns:
        The picture, and how its values were brought to 8 bits; None where they had 8.

    Raises:
        ImageRefused: the file is broken, too large, or of a kind without one clear reading.
    """
    with _refusing(f"is a broken DICOM file ({len(data)} bytes): its elements can't be read"):
        dataset, syntax = read_elements(data)
        layout = read_layout(dataset, syntax)
    if layout.rows * layout.columns > max_pixels:
        raise ImageRefused(
            f"is {layout.columns} x {layout.rows} = {layout.rows * layout.columns / 1e6:.1f} megapixels, "
            f"at most {max_pixels / 1e6:g} are accepted; send it smaller",
            limit="pixels",
        )
    if frame >= layout.frames:
        raise ImageRefused(f"asks for frame {frame}, expected 0 to {layout.frames - 1}", "frame")
    with _refusing(f"is a DICOM file whose pixels ({syntax.name}) can't be decoded: broken, or too few"):
        words = _decode(dataset, layout, frame)
    with _refusing("is a DICOM file with a broken window, rescale, lookup table or functional group"):
        apply_functional_groups(dataset, frame)
        return _show(words, dataset, layout)


@contextmanager
def _refusing(problem: str) -> Iterator[None]:
    """Turns whatever a parser of hostile bytes raises into ImageRefused, without its text, which may quote the file."""
    try:
        yield
    except ImageRefused:
        raise
    except TooComplex:
        raise ImageRefused("is a DICOM file of too many elements or fragments; send the frame alone") from None
    except Exception as error:  # noqa: BLE001 - pydicom and its decoders raise anything on broken files
        raise ImageRefused(f"{problem} ({type(error).__name__})") from None


def _decode(dataset: Dataset, layout: Layout, frame: int) -> Words:
    """Decodes one frame to the bits stored, [rows, columns] or, in RGB, [rows, columns, 3]."""
    element = dataset.get_item("PixelData")  # as it lies in the file: another VR would have it parsed as such
    pixels, frames = element.value, layout.frames
    if layout.syntax.is_encapsulated:
        codestream = _codestream(pixels, frame, frames)
        _check_size(codestream, layout)
        pixels, frame, frames = encapsulate([codestream], has_bot=False), 0, 1
    options: dict[str, Any] = {
        "rows": layout.rows,
        "columns": layout.columns,
        "number_of_frames": frames,
        "samples_per_pixel": layout.samples,
        "photometric_interpretation": layout.photometric,
        "bits_allocated": layout.allocated,
        "bits_stored": layout.stored,
        "pixel_representation": int(layout.signed),
        "planar_configuration": layout.planar,
        "pixel_keyword": "PixelData",
        "pixel_vr": element.VR or "OW",
        "correct_unused_bits": False,  # done below, and for every high bit
    }
    plugin = SYNTAXES[layout.syntax]
    array, properties = get_decoder(layout.syntax).as_array(pixels, index=frame, decoding_plugin=plugin, **options)
    if layout.samples == 3 and properties["photometric_interpretation"] != "RGB":
        raise ValueError("the decoder gave no RGB")
    words: Words = array.astype(array.dtype.newbyteorder("="), copy=False).view(f"u{array.dtype.itemsize}")
    if not layout.syntax.is_encapsulated or layout.syntax == uid.RLELossless:
        words = words >> np.uint8(layout.high + 1 - layout.stored)
    elif not layout.signed and int(words.max()) >> layout.stored:  # these codecs give values, not the file's words
        raise ValueError("the codestream has more bits than the file says")
    return words & words.dtype.type((1 << layout.stored) - 1)


def _codestream(pixels: bytes, frame: int, frames: int) -> bytes:
    """The compressed bytes of one frame."""
    if int.from_bytes(pixels[4:8], "little") not in {0, 4 * frames}:
        raise ValueError("the table of offsets has not one for each frame")
    file = BoundedFile(pixels)
    codestream = get_frame(file, frame, number_of_frames=frames)
    file.check()
    return codestream


def _check_size(codestream: bytes, layout: Layout) -> None:
    """Refuses a codestream that would decode to another size than the file says, before it does."""
    if layout.syntax == uid.RLELossless:  # has no size of its own
        return
    if SYNTAXES[layout.syntax] == PLUGIN:
        header = jpeg_header(codestream)
        size = (header.columns, header.rows)
        if header.components != layout.samples:
            raise ValueError("the codestream has another number of samples")
    else:
        with Image.open(io.BytesIO(codestream), formats=("JPEG", "JPEG2000")) as image:
            size = image.size
    if size != (layout.columns, layout.rows):
        raise ImageRefused(
            f"is a DICOM file of {layout.columns} x {layout.rows} pixels whose compressed frame is "
            f"{size[0]} x {size[1]}",
        )


def _show(words: Words, dataset: Dataset, layout: Layout) -> tuple[Image.Image, str | None]:
    """Brings stored bits to 8 bits of grey or colour."""
    if layout.photometric == "PALETTE COLOR":
        pixels, message = color_from_palette(words, dataset, layout)
    elif layout.samples == 1:
        pixels, message = gray(words, dataset, layout)
    elif layout.stored > 8:
        pixels = (words >> np.uint8(layout.stored - 8)).astype(np.uint8)
        message = f"reduced from {layout.stored} to 8 bits"
    else:
        pixels, message = words.astype(np.uint8), None
    return Image.fromarray(np.ascontiguousarray(pixels)), message
