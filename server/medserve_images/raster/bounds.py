"""What an encoded image may cost before and while it is decoded.

The header bounds the number of pixels. These are the other ways in which a small file takes minutes or gigabytes.
"""

import io
import logging
import warnings

from PIL import Image, PngImagePlugin

from medserve_images.errors import ImageRefused
from medserve_images.target import ImageLimits

# The limit here is checked before any pixel is decoded.
Image.MAX_IMAGE_PIXELS = None
# Pillow's log and warnings quote the tags of the file.
logging.getLogger("PIL").setLevel(logging.CRITICAL + 1)
warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")

# Texts of a PNG are unpacked whole; Pillow itself stops at 64 MiB.
PngImagePlugin.MAX_TEXT_MEMORY = 8 * 1024 * 1024

FREE_PIXELS = 1_000_000
"""An image so small may be compressed to any ratio."""
FREE_PARTS = 5_000
BYTES_PER_PART = 512


def max_parts(data: bytes) -> int:
    """How many segments, chunks, strips or tiles a file may have: each costs the interpreter some microseconds."""
    return FREE_PARTS + len(data) // BYTES_PER_PART


def too_many(what: str) -> ImageRefused:
    """The refusal of a file for the number of its parts."""
    return ImageRefused(f"{what}; save it again with an ordinary program", limit="image_parts")


class BoundedFile(io.BytesIO):
    """An encoded image of a bounded number of parts: Pillow walks over them in Python, one by one.

    Args:
        data: The file.

    Raises:
        ImageRefused: From `read`, where the file has too many parts.
    """

    def __init__(self, data: bytes) -> None:
        super().__init__(data)
        self._left = max_parts(data)

    def read(self, size: int | None = -1, /) -> bytes:
        """Reads as any file."""
        self._left -= 1
        if self._left < 0:
            raise too_many("consists of too many tiny parts")
        return super().read(size)


def check_size(width: int, height: int, encoded_bytes: int, limits: ImageLimits) -> None:
    """Refuses an image by its header, before anything is decoded.

    Args:
        width: In pixels.
        height: In pixels.
        encoded_bytes: Size of its file.
        limits: What is accepted.

    Raises:
        ImageRefused: It has too many pixels, or too many for its bytes.
    """
    pixels = width * height
    if pixels > limits.max_pixels:
        raise ImageRefused(
            f"is {width} x {height} = {pixels / 1e6:.1f} megapixels, "
            f"at most {limits.max_pixels / 1e6:g} are accepted; send it smaller",
            limit="pixels",
        )
    if pixels > FREE_PIXELS and pixels > limits.max_ratio * encoded_bytes:
        raise ImageRefused(
            f"holds {pixels} pixels in {encoded_bytes} bytes; above a megapixel at most {limits.max_ratio:g} pixels "
            "per byte are accepted; send it smaller",
            limit="decompression",
        )
