"""Decodes JPEG files (ISO/IEC 10918-1) with Pillow."""

import hashlib
import random
import re
import struct

from PIL import Image
from PIL.JpegImagePlugin import JpegImageFile

from medserve_images.errors import ImageRefused
from medserve_images.raster.bounds import BoundedFile, check_size, max_parts, too_many
from medserve_images.raster.display import exif_orientation, profile_warnings, upright
from medserve_images.target import ImageLimits
from medserve_images.warning import ImageWarning

MAX_SCANS = 100
"""Each scan takes a pass over all pixels, even if it has few bytes. Baseline files have 1, progressive files about 10.
"""

_FRAME_MARKERS = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_SEQUENTIAL_DCT = frozenset({0xC0, 0xC1})
_START_OF_SCAN = 0xDA
END_OF_IMAGE = b"\xff\xd9"
# All markers except those without a segment: stuffed zeros, TEM, and restart markers.
_SEGMENT = re.compile(rb"\xff+([^\x00\x01\xff\xd0-\xd7])", re.DOTALL)
NOISE = random.Random(0).randbytes(512).replace(b"\xff", b"")  # noqa: S311 (not for security)
"""Random bytes without markers. If inserting them before the end of an image changes pixels, the scan is incomplete."""


def decode_jpeg(data: bytes, limits: ImageLimits, warnings: list[ImageWarning]) -> Image.Image:
    """Decodes a JPEG file to mode L, RGB or CMYK; for a multi-picture file (CIPA DC-007), the first picture.

    Raises:
        ImageRefused: It has samples of other than 8 bits or CMYK colors of unknown polarity, or exceeds a limit.
        Exception: It is corrupt; see `decode_raster`.
    """
    if data.count(bytes((0xFF, _START_OF_SCAN))) > MAX_SCANS:
        raise too_many(f"is a JPEG with more than {MAX_SCANS} scans")
    frame, bits, components = _frame_header(data)
    if bits != 8 or components not in {1, 3, 4}:
        raise ImageRefused(f"is a JPEG of {components} x {bits} bits per pixel; expected 1, 3 or 4 samples of 8 bits")
    # Image.open would treat the pictures of a multi-picture file as frames of an animation.
    with JpegImageFile(BoundedFile(data)) as image:
        check_size(*image.size, len(data), limits)
        if image.mode == "CMYK" and "adobe" not in image.info:
            raise ImageRefused("is a CMYK JPEG without an Adobe marker, so 0 may mean no ink or full ink; send RGB")
        if "mp" in image.info:
            warnings.append(ImageWarning("FIRST_OF_SEVERAL", "is a multi-picture file; only the first picture is read"))
        warnings.extend(profile_warnings(image.info.get("icc_profile")))
        image.load()
        _check_complete(data, image, sequential=frame in _SEQUENTIAL_DCT)
        return upright(image, exif_orientation(image))


def _check_complete(data: bytes, image: Image.Image, *, sequential: bool) -> None:
    """Refuses a file whose last scan is truncated before the end-of-image marker.

    libjpeg fills in missing blocks and issues a warning that Pillow does not report. Bytes between a complete scan and
    the end-of-image marker have no influence on the pixels, so the file is decoded with and without noise there.

    Raises:
        ValueError: The pixels depend on the noise, or there is no end-of-image marker.
    """
    content = data[: _end_of_image(data)]
    # At an eighth of the resolution, decoding sequential DCT twice takes as long as decoding all pixels once, and
    # almost no memory. Progressive files gain nothing, since most of their scans contain higher frequencies, and
    # libjpeg does not scale lossless ones.
    expected = _digest(content + END_OF_IMAGE, eighth=True) if sequential else _hash(image)
    if expected != _digest(content + NOISE + END_OF_IMAGE, eighth=sequential):
        raise ValueError("blocks are missing before the end of the image")


def _digest(data: bytes, *, eighth: bool) -> bytes:
    """Returns a hash of the pixels of a file, optionally decoded at an eighth of the resolution."""
    with JpegImageFile(BoundedFile(data)) as image:
        if eighth:
            image.draft(None, (1, 1))
        image.load()
        return _hash(image)


def _hash(image: Image.Image) -> bytes:
    return hashlib.blake2b(image.tobytes()).digest()


def _end_of_image(data: bytes) -> int:
    """Returns the position of the first picture's end-of-image marker.

    Raises:
        ValueError, struct.error: There is none.
    """
    position = 2
    for _ in range(max_parts(data)):
        found = _SEGMENT.search(data, position)
        if found is None:
            raise ValueError("there is no end-of-image marker")
        if found[1] == END_OF_IMAGE[1:]:
            return found.start()
        (length,) = struct.unpack_from(">H", data, found.end())
        position = found.end() + length
    raise too_many("consists of too many small parts")


def _frame_header(data: bytes) -> tuple[int, int, int]:
    """Returns the second byte of the frame header's marker, the bits per sample and the number of components.

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
            return marker & 0xFF, data[position + 4], data[position + 9]
        position += 2 + length
    raise too_many("consists of too many small parts")
