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
"""Each costs a pass over all pixels, however few bytes it has. Usual are 1, and 10 of a progressive file."""

_FRAME_MARKERS = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_SEQUENTIAL_DCT = frozenset({0xC0, 0xC1})
_START_OF_SCAN = 0xDA
END_OF_IMAGE = b"\xff\xd9"
# All markers but those without a segment: stuffed zeros, TEM, and restart markers.
_SEGMENT = re.compile(rb"\xff+([^\x00\x01\xff\xd0-\xd7])", re.DOTALL)
NOISE = random.Random(0).randbytes(512).replace(b"\xff", b"")  # noqa: S311 (not for security)
"""Without markers; what it changes where it stands before the end of an image was not complete."""


def decode_jpeg(data: bytes, limits: ImageLimits, warnings: list[ImageWarning]) -> Image.Image:
    """Decodes a JPEG file to mode L, RGB or CMYK; of a multi-picture file (CIPA DC-007) the first picture.

    Raises:
        ImageRefused: It has samples of other than 8 bits, CMYK colors of unknown polarity, or exceeds a limit.
        Exception: It is broken; see `decode_raster`.
    """
    if data.count(bytes((0xFF, _START_OF_SCAN))) > MAX_SCANS:
        raise too_many(f"is a JPEG of more than {MAX_SCANS} scans")
    frame, bits, components = _frame_header(data)
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
        _check_complete(data, image, sequential=frame in _SEQUENTIAL_DCT)
        return upright(image, exif_orientation(image))


def _check_complete(data: bytes, image: Image.Image, *, sequential: bool) -> None:
    """Refuses a file whose last scan lacks blocks before the end-of-image marker.

    libjpeg makes up such blocks, with a warning that Pillow does not pass on. What stands between a complete scan and
    the end of the image has no influence on the pixels, so the file is decoded with and without noise there.

    Raises:
        ValueError: The pixels depend on the noise, or there is no end.
    """
    content = data[: _end_of_image(data)]
    # At an eighth of the resolution, two decodings of sequential DCT take as long as one of all pixels, and no memory.
    # In a progressive file most scans are of higher frequencies, and libjpeg does not scale a lossless one.
    expected = _digest(content + END_OF_IMAGE, eighth=True) if sequential else _hash(image)
    if expected != _digest(content + NOISE + END_OF_IMAGE, eighth=sequential):
        raise ValueError("blocks are missing before the end of the image")


def _digest(data: bytes, *, eighth: bool) -> bytes:
    """A hash of the pixels of a file, or of those at an eighth of the resolution."""
    with JpegImageFile(BoundedFile(data)) as image:
        if eighth:
            image.draft(None, (1, 1))
        image.load()
        return _hash(image)


def _hash(image: Image.Image) -> bytes:
    return hashlib.blake2b(image.tobytes()).digest()


def _end_of_image(data: bytes) -> int:
    """Where the end-of-image marker of the first picture is.

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
    raise too_many("consists of too many tiny parts")


def _frame_header(data: bytes) -> tuple[int, int, int]:
    """The second byte of the frame header's marker, bits per sample and number of components, from the frame header.

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
    raise too_many("consists of too many tiny parts")
