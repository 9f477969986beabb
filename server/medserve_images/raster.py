"""Decodes PNG, JPEG and TIFF files within bounds."""

import struct
import zlib

from PIL import Image, ImageOps, UnidentifiedImageError

from medserve_images.errors import ImageRefused
from medserve_images.raster_bounds import BoundedFile, check_decompression
from medserve_images.target import ImageLimits

# The limit here is checked before any pixel is decoded.
Image.MAX_IMAGE_PIXELS = None

FORMATS = ("PNG", "JPEG", "TIFF")
# What Pillow's decoders raise on broken files.
UNREADABLE = (
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


def decode_raster(data: bytes, limits: ImageLimits) -> Image.Image:
    """Decodes the pixels of a file and turns them as its orientation tag says.

    Raises:
        ImageRefused: the file is broken, of another format, or too large.
    """
    try:
        with Image.open(BoundedFile(data), formats=FORMATS) as image:
            _check(image, limits)
            check_decompression(image, len(data), limits.max_ratio)
            return ImageOps.exif_transpose(image)
    except UNREADABLE as error:
        reason = "is not a PNG, JPEG, TIFF or DICOM file" if isinstance(error, UnidentifiedImageError) else "is broken"
        raise ImageRefused(f"{reason} ({len(data)} bytes); expected a whole picture of these formats") from error


def _check(image: Image.Image, limits: ImageLimits) -> None:
    """Refuses by the header, before anything is decoded."""
    width, height = image.size
    if width * height > limits.max_pixels:
        raise ImageRefused(
            f"is {width} x {height} = {width * height / 1e6:.1f} megapixels, "
            f"at most {limits.max_pixels / 1e6:g} are accepted; send it smaller",
            limit="pixels",
        )
    if (frames := getattr(image, "n_frames", 1)) > 1:
        raise ImageRefused(f"has {frames} frames, expected one; send each frame as an image of its own")
