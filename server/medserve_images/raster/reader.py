"""Decodes PNG, JPEG and TIFF files with bounded resources."""

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
# Exceptions that Pillow's decoders and the parsers in this package raise for corrupt files.
_CORRUPT = (
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
    """Decodes a file to an upright, opaque image of mode L, RGB or CMYK, and appends warnings to `warnings`.

    Raises:
        ImageRefused: The file is corrupt, of an unsupported format, too large, or ambiguous.
    """
    decode = next((decode for signature, decode in _DECODERS.items() if data.startswith(signature)), None)
    if decode is None:
        raise ImageRefused(f"is not a PNG, JPEG, TIFF or DICOM file ({len(data)} bytes)")
    try:
        return decode(data, limits, warnings)
    except _CORRUPT as error:
        raise ImageRefused(
            f"is corrupt ({len(data)} bytes); expected a complete PNG, JPEG, TIFF or DICOM file"
        ) from error
