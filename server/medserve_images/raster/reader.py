"""Decodes PNG, JPEG and TIFF files within bounds."""

import struct
import zlib

from PIL import Image

from medserve_images.errors import ImageRefused
from medserve_images.raster.jpeg import decode_jpeg
from medserve_images.raster.png import decode_png
from medserve_images.raster.tiff import decode_tiff
from medserve_images.target import ImageLimits
from medserve_images.warning import ImageWarning

_DECODERS = {
    b"\x89PNG\r\n\x1a\n": decode_png,
    b"\xff\xd8\xff": decode_jpeg,
    b"II*\0": decode_tiff,
    b"MM\0*": decode_tiff,
    b"II+\0": decode_tiff,  # BigTIFF
    b"MM\0+": decode_tiff,
}
# What Pillow's decoders and the parsers here raise on broken files.
_BROKEN = (
    OSError,
    SyntaxError,
    ValueError,
    TypeError,
    LookupError,
    ArithmeticError,
    EOFError,
    NotImplementedError,
    struct.error,
    zlib.error,
)


def decode_raster(data: bytes, limits: ImageLimits, warnings: list[ImageWarning]) -> Image.Image:
    """Decodes a file to an upright, opaque image of mode L, RGB or CMYK, and appends what should be known of it.

    Raises:
        ImageRefused: The file is broken, of another format, too large, or of a kind without one clear reading.
    """
    decode = next((decode for signature, decode in _DECODERS.items() if data.startswith(signature)), None)
    if decode is None:
        raise ImageRefused(f"is not a PNG, JPEG, TIFF or DICOM file ({len(data)} bytes)")
    try:
        return decode(data, limits, warnings)
    except _BROKEN as error:
        raise ImageRefused(
            f"is broken ({len(data)} bytes); expected a complete PNG, JPEG, TIFF or DICOM file"
        ) from error
