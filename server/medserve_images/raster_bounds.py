"""What an encoded picture may cost before and while it is decoded.

Its pixels are bounded by its header. These are the other ways in which a small file takes minutes or gigabytes.
"""

import io
import logging

from PIL import Image, PngImagePlugin, TiffImagePlugin

from medserve_images.errors import ImageRefused

# Its messages quote the tags of the file.
logging.getLogger("PIL").setLevel(logging.CRITICAL + 1)

# Texts of a PNG are unpacked whole; Pillow itself stops at 64 MiB.
PngImagePlugin.MAX_TEXT_MEMORY = 8 * 1024 * 1024

FREE_PIXELS = 1_000_000
"""A picture so small may be packed as tightly as it likes."""
MAX_SCANS = 100
"""Of a JPEG: each costs a pass over all pixels, however few bytes it has. Usual are 1, and 10 of a progressive one."""
MAX_PROFILES = 4
"""Of a PNG: each may unpack to a megabyte. The format allows one."""
MAX_TILE_PIXELS = 2048 * 2048
FREE_READS = 5_000
BYTES_PER_READ = 512


class BoundedFile(io.BytesIO):
    """An encoded picture whose parts have to be of some size: Pillow walks over them in Python, one by one.

    Args:
        data: the file.

    Raises:
        ImageRefused: the file has too many scans or profiles; later, from `read`, too many parts.
    """

    def __init__(self, data: bytes) -> None:
        super().__init__(data)
        self._left = FREE_READS + len(data) // BYTES_PER_READ
        if data.startswith(b"\xff\xd8") and data.count(b"\xff\xda") > MAX_SCANS:
            raise self._refusal(f"is a JPEG of more than {MAX_SCANS} scans")
        if data.startswith(b"\x89PNG") and data.count(b"iCCP") > MAX_PROFILES:
            raise self._refusal("is a PNG of many colour profiles")

    def read(self, size: int | None = -1, /) -> bytes:
        """Reads as any file."""
        self._left -= 1
        if self._left < 0:
            raise self._refusal("consists of too many tiny parts")
        return super().read(size)

    def _refusal(self, reason: str) -> ImageRefused:
        return ImageRefused(f"{reason}; save it again with an ordinary program", limit="image_parts")


def check_decompression(image: Image.Image, encoded_bytes: int, max_ratio: float) -> None:
    """Refuses a picture that unpacks to far more than any photograph does.

    Args:
        image: opened and not decoded.
        encoded_bytes: size of its file.
        max_ratio: pixels for each of these bytes.

    Raises:
        ImageRefused: it does.
    """
    pixels = image.width * image.height
    if pixels > FREE_PIXELS and pixels > max_ratio * encoded_bytes:
        raise ImageRefused(
            f"holds {pixels} pixels in {encoded_bytes} bytes; above a megapixel at most {max_ratio:g} pixels a byte "
            "are accepted; send it smaller",
            limit="decompression",
        )
    tags = getattr(image, "tag_v2", {})
    tile = [tags.get(tag, 0) for tag in (TiffImagePlugin.TILEWIDTH, TiffImagePlugin.TILELENGTH)]
    # libtiff makes room for a whole tile, which may be larger than its picture.
    if not all(isinstance(size, int) for size in tile) or tile[0] * tile[1] > max(MAX_TILE_PIXELS, pixels):
        raise ImageRefused("is a TIFF whose tiles are larger than the picture", limit="decompression")
