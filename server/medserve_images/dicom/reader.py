"""Decodes one frame of a DICOM file to 8 bits, with bounded resources, like the default display of a viewer.

Errors quote nothing from a file except numbers that describe its pixels, and never contain messages of pydicom.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np
from PIL import Image
from pydicom.dataset import Dataset

from medserve_images.dicom.display import color_from_palette, gray
from medserve_images.dicom.elements import TooComplex, refusal
from medserve_images.dicom.header import (
    Layout,
    apply_functional_groups,
    read_elements,
    read_layout,
    read_sop_instance_uid,
)
from medserve_images.dicom.pixels import Words, decode
from medserve_images.dicom.spacing import read_spacing
from medserve_images.errors import ImageRefused
from medserve_images.spacing import Spacing
from medserve_images.target import ImageLimits
from medserve_images.warning import ImageWarning


class DicomFrame(NamedTuple):
    """A decoded frame, and properties of its file.

    Attributes:
        image: The frame, of mode L or RGB.
        frames: Number of frames of the file.
        sop_instance_uid: "" if it is missing or does not consist of at most 64 digits and dots.
        spacing: None if it is missing or invalid.
    """

    image: Image.Image
    frames: int
    sop_instance_uid: str
    spacing: Spacing | None


def read_dicom(data: bytes, frame: int | None, limits: ImageLimits, warnings: list[ImageWarning]) -> DicomFrame:
    """Decodes one frame to an image of mode L or RGB, like the default display of a viewer.

    Args:
        data: A complete file, with preamble.
        frame: Frame number, from 0; None for the first, with a warning if there are more.
        limits: Limits for a frame; its pixels are counted before anything is decoded.
        warnings: Receives warnings about the conversion to 8 bits and about contradictions in the file.

    Raises:
        ImageRefused: The file is corrupt, too large, or ambiguous.
    """
    with _refusing(f"is a corrupt DICOM file ({len(data)} bytes): its elements cannot be read"):
        dataset, syntax = read_elements(data)
        layout = read_layout(dataset, syntax)
        instance = read_sop_instance_uid(dataset)
    if layout.rows * layout.columns > limits.max_pixels:
        raise ImageRefused(
            f"is {layout.columns} x {layout.rows} = {layout.rows * layout.columns / 1e6:.1f} megapixels, "
            f"at most {limits.max_pixels / 1e6:g} are accepted; send a smaller image",
            limit="pixels",
        )
    if frame is None:
        frame = 0
        if layout.frames > 1:
            warnings.append(ImageWarning("FIRST_OF_SEVERAL", f"has {layout.frames} frames; only the first is read"))
    if frame >= layout.frames:
        raise ImageRefused(f"is {frame}, expected 0 to {layout.frames - 1}", "frame")
    with _refusing(
        f"is a DICOM file whose pixels ({syntax.name}) cannot be decoded: the frame is corrupt or truncated"
    ):
        words = decode(dataset, layout, frame, warnings)
    with _refusing("is a DICOM file with a corrupt sequence of lookup tables or functional groups"):
        apply_functional_groups(dataset, frame)
        image = Image.fromarray(np.ascontiguousarray(_show(words, dataset, layout, warnings)))
    return DicomFrame(image, layout.frames, instance, read_spacing(dataset, frame, warnings))


@contextmanager
def _refusing(problem: str) -> Iterator[None]:
    """Converts any exception of a parser to ImageRefused, without its message, which may quote the file."""
    try:
        yield
    except ImageRefused:
        raise
    except TooComplex:
        raise refusal("with too many elements or fragments; send the frame as a separate file") from None
    except Exception as error:  # noqa: BLE001 - pydicom and the decoders may raise anything for corrupt files
        raise ImageRefused(f"{problem} ({type(error).__name__})") from None


def _show(
    words: Words, dataset: Dataset, layout: Layout, warnings: list[ImageWarning]
) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    """Converts stored bits to 8-bit gray or color."""
    if layout.photometric == "PALETTE COLOR":
        return color_from_palette(words, dataset, layout, warnings)
    if layout.samples == 1:
        return gray(words, dataset, layout, warnings)
    if layout.stored == 8:
        return words.astype(np.uint8)
    warnings.append(ImageWarning("DEPTH_REDUCED", f"reduced from {layout.stored} to 8 bits"))
    return (words >> np.uint8(layout.stored - 8)).astype(np.uint8)
