"""Reads the tags of a TIFF file (TIFF 6.0 and BigTIFF), and writes the few that a decompressor needs.

The image library's parser never sees the tags of a file: those that describe its pixels are read and validated here,
and written to a new file.
"""

import struct
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Literal

import numpy as np

from medserve_images.raster.bounds import max_parts, too_many

ByteOrder = Literal["<", ">"]


class Tag(IntEnum):
    """The tags that are read."""

    WIDTH = 256
    LENGTH = 257
    BITS_PER_SAMPLE = 258
    COMPRESSION = 259
    PHOTOMETRIC = 262
    FILL_ORDER = 266
    STRIP_OFFSETS = 273
    ORIENTATION = 274
    SAMPLES_PER_PIXEL = 277
    ROWS_PER_STRIP = 278
    STRIP_BYTE_COUNTS = 279
    PLANAR_CONFIGURATION = 284
    T4_OPTIONS = 292
    T6_OPTIONS = 293
    PREDICTOR = 317
    COLOR_MAP = 320
    TILE_WIDTH = 322
    TILE_LENGTH = 323
    TILE_OFFSETS = 324
    TILE_BYTE_COUNTS = 325
    INK_SET = 332
    EXTRA_SAMPLES = 338
    SAMPLE_FORMAT = 339
    JPEG_TABLES = 347
    YCBCR_COEFFICIENTS = 529
    YCBCR_SUBSAMPLING = 530
    REFERENCE_BLACK_WHITE = 532
    ICC_PROFILE = 34675


_TAGS = frozenset(Tag)
_BYTES = {Tag.JPEG_TABLES, Tag.ICC_PROFILE}
_RATIONAL = 5
_TYPES = {1: "u1", 3: "u2", 4: "u4", _RATIONAL: "u4", 7: "u1", 13: "u4", 16: "u8", 18: "u8"}
_MAX_PAGES = 1000


@dataclass(frozen=True, slots=True)
class Directory:
    """The tags of a file's first page, and the number of pages.

    Attributes:
        byte_order: "<" or ">".
        numbers: Values of each numeric tag; rationals as quotients.
        content: Contents of the tags with bytes.
        pages: Number of pages, at least 1.
    """

    byte_order: ByteOrder
    numbers: Mapping[Tag, tuple[float, ...]]
    content: Mapping[Tag, bytes]
    pages: int

    def integers(self, tag: Tag, default: Sequence[int] = ()) -> tuple[int, ...]:
        """Returns the values of a tag, or the default if the file does not have it."""
        return tuple(int(number) for number in self.numbers.get(tag, default))

    def one(self, tag: Tag, default: int | None = None) -> int:
        """Returns the single value of a tag.

        Raises:
            ValueError: The tag is missing without a default, or has several values.
        """
        (value,) = self.integers(tag, () if default is None else (default,))
        return value


def read_directory(data: bytes) -> Directory:
    """Reads the first page's tags.

    Raises:
        ImageRefused: It has too many values or pages.
        ValueError, KeyError, struct.error: It is corrupt: truncated, with a duplicate tag, or a tag of a wrong type.
    """
    order: ByteOrder = "<" if data.startswith(b"II") else ">"
    big = data[2:4] in {b"+\0", b"\0+"}
    position = struct.unpack_from(f"{order}{'8xQ' if big else '4xI'}", data)[0]
    entry, head, offset = (20, "Q", "Q") if big else (12, "H", "I")
    numbers: dict[Tag, tuple[float, ...]] = {}
    content: dict[Tag, bytes] = {}
    first, pages, seen = True, 0, set()
    while position and position not in seen:
        seen.add(position)
        pages += 1
        if pages > _MAX_PAGES:
            raise too_many(f"is a TIFF with more than {_MAX_PAGES} pages")
        (count,) = struct.unpack_from(f"{order}{head}", data, position)
        start = position + struct.calcsize(head)
        end = start + count * entry
        (position,) = struct.unpack_from(f"{order}{offset}", data, end)
        if first:
            if count > max_parts(data):
                raise too_many("is a TIFF of too many tags")
            for at in range(start, end, entry):
                _read_entry(data, at, order, offset, numbers, content)
            first = False
    if not pages:
        raise ValueError("there is no page")
    return Directory(order, numbers, content, pages)


def _read_entry(
    data: bytes,
    at: int,
    order: ByteOrder,
    offset: str,
    numbers: dict[Tag, tuple[float, ...]],
    content: dict[Tag, bytes],
) -> None:
    number, kind, count = struct.unpack_from(f"{order}HH{offset}", data, at)
    if number not in _TAGS:
        return
    tag = Tag(number)
    if tag in numbers or tag in content:
        raise ValueError("a tag occurs twice")
    room = struct.calcsize(offset)
    dtype = np.dtype(_TYPES[kind]).newbyteorder(order)
    size = count * dtype.itemsize * (2 if kind == _RATIONAL else 1)
    place = at + 4 + room
    if size > room:
        (place,) = struct.unpack_from(f"{order}{offset}", data, place)
    if place + size > len(data):
        raise ValueError("a tag extends beyond the end of the file")
    if tag in _BYTES:
        content[tag] = data[place : place + size]
        return
    if count > max(max_parts(data), 3 * 2**8):
        raise too_many("is a TIFF with too many strips, tiles or values")
    values = np.frombuffer(data, dtype, size // dtype.itemsize, place).tolist()
    if kind == _RATIONAL:
        values = [top / bottom for top, bottom in zip(values[::2], values[1::2], strict=True)]
    numbers[tag] = tuple(values)


def write_tiff(tags: Mapping[Tag, int | Collection[int] | bytes], parts: Sequence[bytes], *, tiled: bool) -> bytes:
    """Writes a little-endian TIFF file with one page.

    Args:
        tags: Tags of the page, without the offsets and byte counts of its strips or tiles.
        parts: The encoded strips or tiles.
        tiled: Whether the parts are tiles.
    """
    offsets = np.cumsum([8, *map(len, parts)])[:-1]
    places = (Tag.TILE_OFFSETS, Tag.TILE_BYTE_COUNTS) if tiled else (Tag.STRIP_OFFSETS, Tag.STRIP_BYTE_COUNTS)
    every = {**tags, places[0]: offsets.tolist(), places[1]: [len(part) for part in parts]}
    body = b"".join(parts)
    entries = b""
    for tag, value in sorted(every.items()):
        if isinstance(value, bytes):
            kind, count, encoded = 7, len(value), value
        else:
            values = [value] if isinstance(value, int) else list(value)
            kind, count, encoded = 4, len(values), struct.pack(f"<{len(values)}I", *values)
        if len(encoded) > 4:
            body += bytes(len(body) % 2)
            place, body = struct.pack("<I", 8 + len(body)), body + encoded
        else:
            place = encoded.ljust(4, b"\0")
        entries += struct.pack("<HHI", tag, kind, count) + place
    body += bytes(len(body) % 2)
    return b"II*\0" + struct.pack("<I", 8 + len(body)) + body + struct.pack("<H", len(every)) + entries + bytes(4)
