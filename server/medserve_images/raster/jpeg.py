"""Decodes JPEG files (ISO/IEC 10918-1) with Pillow."""

import struct

from PIL import Image
from PIL.JpegImagePlugin import JpegImageFile

from medserve_images.errors import ImageRefused
from medserve_images.raster.bounds import BoundedFile, check_size, max_parts, too_many
from medserve_images.raster.display import exif_orientation, profile_warnings, upright
from medserve_images.target import ImageLimits
from medserve_images.warning import ImageWarning

MAX_SCANS = 100
"""Each costs a pass over all pixels, however few bytes it has. Usual are 1, and 10 of a progressive file."""

_FRAME_MARKERS = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_START_OF_SCAN = 0xDA


def decode_jpeg(data: bytes, limits: ImageLimits, warnings: list[ImageWarning]) -> Image.Image:
    """Decodes a JPEG file to mode L, RGB or CMYK; of a multi-picture file (CIPA DC-007) the first picture.

    Raises:
        ImageRefused: It has samples of other than 8 bits, CMYK colors of unknown polarity, or exceeds a limit.
        Exception: It is broken; see `decode_raster`.
    """
    if data.count(bytes((0xFF, _START_OF_SCAN))) > MAX_SCANS:
        raise too_many(f"is a JPEG of more than {MAX_SCANS} scans")
    bits, components = _frame_header(data)
    if bits != 8 or components not in {1, 3, 4}:
        raise ImageRefused(f"is a JPEG of {components} x {bits} bits per pixel; expected 1, 3 or 4 samples of 8 bits")
    # Not Image.open, which would take the pictures of a multi-picture file for frames of an animation.
    with JpegImageFile(BoundedFile(data)) as image:
        check_size(*image.size, len(data), limits)
        if image.mode == "CMYK" and "adobe" not in image.info:
            raise ImageRefused("is a CMYK JPEG without Adobe marker, so that 0 may mean no ink or full ink; send RGB")
        if "mp" in image.info:
            warnings.append(ImageWarning("FIRST_OF_SEVERAL", "is a multi-picture file, of which the first is read"))
        warnings.extend(profile_warnings(image.info.get("icc_profile")))
        image.load()
        return upright(image, exif_orientation(image))


def _frame_header(data: bytes) -> tuple[int, int]:
    """Bits per sample and number of components, from the frame header.

    Raises:
        ValueError, struct.error: There is none.
    """
    position = 2
    for _ in range(max_parts(data)):
        marker, length = struct.unpack_from(">HH", data, position)
        if marker == 0xFFFF:  # a fill byte
            position += 1
            continue
        if marker >> 8 != 0xFF or marker & 0xFF == _START_OF_SCAN:
            raise ValueError("there is no frame header before the first scan")
        if marker & 0xFF in _FRAME_MARKERS:
            return data[position + 4], data[position + 9]
        position += 2 + length
    raise too_many("consists of too many tiny parts")
