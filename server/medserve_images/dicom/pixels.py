"""Decodes one frame of a DICOM file to its stored bits."""

import io
from typing import cast

import numpy as np
from numpy.typing import NDArray
from pydicom import uid
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.encaps import get_frame
from pydicom.pixels.processing import convert_color_space

from medserve_images.dicom.codecs.jpeg import decode_jpeg
from medserve_images.dicom.codecs.jpeg2000 import decode_jpeg_2000
from medserve_images.dicom.codecs.jpeg_lossless import decode_jpeg_lossless
from medserve_images.dicom.codecs.rle import decode_rle
from medserve_images.dicom.elements import BoundedFile, refusal
from medserve_images.dicom.header import JPEG, JPEG_LOSSLESS, Layout
from medserve_images.warning import ImageWarning

Words = NDArray[np.uint8] | NDArray[np.uint16]


def decode(dataset: Dataset, layout: Layout, frame: int, warnings: list[ImageWarning]) -> Words:
    """Decodes one frame to its stored bits, [rows, columns] or, in RGB, [rows, columns, 3].

    Raises:
        ImageRefused: The pixel data is too short, or contradicts the file's header.
        TooComplex: The pixel data has too many fragments.
        Exception: Any exception that the decoders raise for corrupt frames.
    """
    element: object = dataset.get_item("PixelData")
    if not isinstance(element, RawDataElement):
        raise refusal("whose PixelData is not a value")
    rgb = layout.photometric in {"RGB", "YBR_ICT", "YBR_RCT"}
    if not layout.syntax.is_encapsulated:
        words = _mask_stored_bits(_native(element, layout, frame), layout)
    else:
        codestream = _codestream(element.value or b"", frame, layout.frames)
        if layout.syntax == uid.RLELossless:
            words = _mask_stored_bits(decode_rle(codestream, layout), layout)
        elif layout.syntax in JPEG:
            words = _to_stored_bits(decode_jpeg(codestream, layout, warnings), 8, layout)
            rgb = True
        elif layout.syntax in JPEG_LOSSLESS:
            words = _to_stored_bits(*decode_jpeg_lossless(codestream, layout), layout)
        else:
            words = _to_stored_bits(*decode_jpeg_2000(codestream, layout), layout)
    if layout.samples == 1:
        return words[..., 0]
    return words if rgb else convert_color_space(words.astype(np.uint8), "YBR_FULL", "RGB")


def _native(element: RawDataElement, layout: Layout, frame: int) -> Words:
    """Extracts one frame from uncompressed pixel data, [rows, columns, samples]."""
    halved = layout.photometric == "YBR_FULL_422"
    if halved and layout.columns % 2:
        raise refusal(f"whose Columns is {layout.columns}, expected an even number for YBR_FULL_422")
    size = layout.rows * layout.columns * (2 if halved else layout.samples) * layout.allocated // 8
    data = element.value or b""
    if len(data) < size * layout.frames:
        raise refusal(f"whose PixelData has {len(data)} bytes, expected {size * layout.frames}")
    start, end = frame * size, (frame + 1) * size
    if layout.allocated == 16:
        if not element.is_little_endian and element.VR in {"OB", "UN"}:
            raise refusal(
                f"in big endian whose 16-bit PixelData has the value representation {element.VR}, expected OW"
            )
        return _arrange(np.frombuffer(data[start:end], "<u2" if element.is_little_endian else ">u2"), layout)
    if element.is_little_endian or element.VR in {"OB", "UN"}:
        return _arrange(np.frombuffer(data[start:end], np.uint8), layout)
    # Bytes packed in big-endian words, the first in the low byte.
    pairs = np.frombuffer(data[start - start % 2 : end + end % 2], np.uint8).reshape(-1, 2)
    return _arrange(pairs[:, ::-1].ravel()[start % 2 :][:size], layout)


def _arrange(samples: NDArray[np.uint8] | NDArray[np.uint16], layout: Layout) -> Words:
    """Arranges the samples of an uncompressed frame as [rows, columns, samples]."""
    words = cast("Words", samples.astype(samples.dtype.newbyteorder("="), copy=False))
    if (
        layout.photometric == "YBR_FULL_422"
    ):  # the luminance of two pixels, then their common chrominance (PS3.3 C.7.6.3.1.2)
        pairs = words.reshape(layout.rows, layout.columns // 2, 4)
        luminance = pairs[..., :2].reshape(layout.rows, layout.columns, 1)
        return cast("Words", np.concatenate([luminance, np.repeat(pairs[..., 2:], 2, axis=1)], axis=-1))
    if layout.planar and layout.samples == 3:
        return cast("Words", words.reshape(layout.samples, layout.rows, layout.columns).transpose(1, 2, 0))
    return cast("Words", words.reshape(layout.rows, layout.columns, layout.samples))


def _mask_stored_bits(words: Words, layout: Layout) -> Words:
    """Shifts the stored bits to the low end and masks out other bits, such as overlays."""
    mask = words.dtype.type((1 << layout.stored) - 1)
    return cast("Words", (words >> np.uint8(layout.high + 1 - layout.stored)) & mask)


def _to_stored_bits(values: NDArray[np.integer], precision: int, layout: Layout) -> Words:
    """Converts the values of a codestream to the stored bits declared in the header.

    Values of signed pixels are either signed numbers, or two's complement with the codestream's precision.

    Raises:
        ImageRefused: A value is out of range.
    """
    low, high = int(values.min()), int(values.max())
    limit = 1 << layout.stored
    if layout.signed:
        if high >= limit // 2 and high < 1 << precision and low >= 0 and precision >= layout.stored:
            values = np.where(values >> (precision - 1) & 1, values.astype(np.int32) - (1 << precision), values)
            low, high = int(values.min()), int(values.max())
        fits = -limit // 2 <= low and high < limit // 2
    else:
        fits = low >= 0 and high < limit
    if not fits:
        raise refusal(
            f"whose BitsStored is {layout.stored} and PixelRepresentation {int(layout.signed)}, "
            f"but its compressed frame has values from {low} to {high}"
        )
    words = values.astype(np.int32) & (limit - 1) if layout.signed else values
    return cast("Words", words.astype(np.uint8 if layout.allocated == 8 else np.uint16))


def _codestream(pixels: bytes, frame: int, frames: int) -> bytes:
    """Returns the compressed bytes of one frame."""
    if (offsets := int.from_bytes(pixels[4:8], "little")) not in {0, 4 * frames}:
        raise refusal(f"whose offset table has {offsets} bytes, expected {4 * frames} for {frames} frames, or none")
    file = BoundedFile(pixels)
    codestream = get_frame(cast("io.BytesIO", file), frame, number_of_frames=frames)
    file.check()
    return codestream
