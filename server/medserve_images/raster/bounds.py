"""Resource limits for decoding images.

Besides the number of pixels, which the header states, these bound the other ways in which a small file could take
minutes or gigabytes to decode.
"""

import io
import logging
import warnings

from PIL import Image, PngImagePlugin

from medserve_images.errors import ImageRefused
from medserve_images.target import ImageLimits

# `check_size` replaces Pillow's limit; it is called before any pixel is decoded.
Image.MAX_IMAGE_PIXELS = None
# Pillow's log messages and warnings quote tags of the file.
logging.getLogger("PIL").setLevel(logging.CRITICAL + 1)
warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")

# Text chunks of a PNG are decompressed completely; Pillow's default limit is 64 MiB.
PngImagePlugin.MAX_TEXT_MEMORY = 8 * 1024 * 1024

FREE_PIXELS = 1_000_000
"""Images of up to this size may have any compression ratio."""
FREE_PARTS = 5_000
BYTES_PER_PART = 512


def max_parts(data: bytes) -> int:
    """Returns the maximum number of segments, chunks, strips or tiles; each takes microseconds of interpreter time."""
    return FREE_PARTS + len(data) // BYTES_PER_PART


def too_many(what: str) -> ImageRefused:
    """Returns the error for a file with too many parts."""
    return ImageRefused(f"{what}; re-save it with standard software", limit="image_parts")


class BoundedFile(io.BytesIO):
    """A file with a bounded number of reads, which bounds the number of parts that Pillow iterates over in Python.

    Args:
        data: Contents of the file.

    Raises:
        ImageRefused: From `read`, if the file has too many parts.
    """

    def __init__(self, data: bytes) -> None:
        super().__init__(data)
        self._left = max_parts(data)

    def read(self, size: int | None = -1, /) -> bytes:
        """Reads bytes like `io.BytesIO.read`."""
        self._left -= 1
        if self._left < 0:
            raise too_many("consists of too many small parts")
        return super().read(size)


def check_size(width: int, height: int, encoded_bytes: int, limits: ImageLimits) -> None:
    """Checks the size in the header of an image before anything is decoded.

    Args:
        width: In pixels.
        height: In pixels.
        encoded_bytes: Size of the file.
        limits: The limits.

    Raises:
        ImageRefused: The image has too many pixels, in total or per encoded byte.
    """
    pixels = width * height
    if pixels > limits.max_pixels:
        raise ImageRefused(
            f"is {width} x {height} = {pixels / 1e6:.1f} megapixels, "
            f"at most {limits.max_pixels / 1e6:g} are accepted; send a smaller image",
            limit="pixels",
        )
    if pixels > FREE_PIXELS and pixels > limits.max_ratio * encoded_bytes:
        raise ImageRefused(
            f"has {pixels} pixels in {encoded_bytes} bytes; above a megapixel at most {limits.max_ratio:g} pixels "
            "per byte are accepted; send a smaller image",
            limit="decompression",
        )
