"""Decodes JPEG 2000 and High-Throughput JPEG 2000 (ISO/IEC 15444-1 and -15) with Pillow's OpenJPEG."""

import io
import struct
from collections import Counter
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from medserve_images.dicom.codecs.jpeg import check_size
from medserve_images.dicom.elements import MAX_SEGMENTS, TooComplex, refusal
from medserve_images.dicom.header import Layout

SOC, SIZ, COD, SOT, EOC = 0xFF4F, 0xFF51, 0xFF52, 0xFF90, 0xFFD9
MAX_TILE_PARTS = 65_535


@dataclass(frozen=True, slots=True)
class Codestream:
    """A complete codestream, and the fields of its main header (annex A)."""

    data: bytes
    columns: int
    rows: int
    components: int
    precision: int
    signed: bool
    transformed: bool
    """Whether it uses a color transformation, so that decoding yields RGB."""


def decode_jpeg_2000(source: bytes, layout: Layout) -> tuple[NDArray[np.integer], int]:
    """Decodes one frame to values, [rows, columns, samples], and their precision in bits.

    Raises:
        ImageRefused: The codestream is truncated, has a different size, or is of an unsupported kind.
        Exception: Any exception that Pillow raises for corrupt codestreams.
    """
    codestream = read_codestream(source)
    check_size(codestream.columns, codestream.rows, codestream.components, layout)
    deepest = 16 if layout.samples == 1 else 8  # Pillow reduces deeper colors to 8 bits
    if not 1 <= codestream.precision <= deepest:
        raise refusal(
            f"whose JPEG 2000 frame has {codestream.precision} bits in {layout.samples} samples, "
            f"expected at most {deepest}"
        )
    if layout.photometric in {"YBR_ICT", "YBR_RCT"} and not codestream.transformed:
        raise refusal(
            f"whose PhotometricInterpretation is {layout.photometric}, "
            "expected RGB or YBR_FULL for a JPEG 2000 frame without color transformation"
        )
    if layout.photometric == "YBR_FULL" and codestream.transformed:
        raise refusal(
            "whose PhotometricInterpretation is YBR_FULL, "
            "expected YBR_ICT or YBR_RCT for a JPEG 2000 frame with color transformation"
        )
    with Image.open(io.BytesIO(codestream.data), formats=("JPEG2000",)) as image:
        decoded = np.asarray(image)
    # Pillow shifts values to the most significant bits of 8 or 16, and offsets signed values to start at 0.
    values = decoded >> (8 * decoded.itemsize - codestream.precision)
    if codestream.signed:
        values = values.astype(np.int32) - (1 << (codestream.precision - 1))
    return values.reshape(layout.rows, layout.columns, layout.samples), codestream.precision


def read_codestream(source: bytes) -> Codestream:
    """Finds the codestream, also within a JP2 file, and checks that it is complete.

    Two errors that do not affect pixels are repaired: a missing end marker, and a wrong number of tile-parts, which is
    optional in the standard.

    Raises:
        ImageRefused: The codestream is truncated, or its components differ in size or depth.
        TooComplex: It has too many parts.
    """
    start = source.find(struct.pack(">HH", SOC, SIZ))
    if start < 0:
        raise refusal("whose compressed frame is not a JPEG 2000 codestream")
    data = bytearray(source[start:])
    position, headers, segments = 2, {}, 0
    while (marker := _marker(data, position)) != SOT:
        segments += 1
        if segments > MAX_SEGMENTS:
            raise TooComplex
        (length,) = _fields(">H", data, position + 2)
        if marker < 0xFF00 or length < 2:
            raise refusal("whose JPEG 2000 codestream lacks a marker in its main header")
        headers[marker] = bytes(data[position + 4 : position + 2 + length])
        position += 2 + length
    _, *sizes, components = _fields(">H8LH", headers[SIZ])
    width, height, left, top, tile_width, tile_height, tile_left, tile_top = sizes
    if not tile_width or not tile_height:
        raise refusal("whose JPEG 2000 codestream has tiles of size 0")
    tiles = -(-(width - tile_left) // tile_width) * -(-(height - tile_top) // tile_height)
    end = _check_tile_parts(data, position, tiles)
    fields = {headers[SIZ][36 + 3 * place : 39 + 3 * place] for place in range(components)}
    if len(fields) != 1 or (field := fields.pop())[1:] != b"\x01\x01":
        raise refusal("whose JPEG 2000 frame has components of different sizes or depths, expected the same for all")
    return Codestream(
        data=bytes(data[:end]) + struct.pack(">H", EOC),
        columns=width - left,
        rows=height - top,
        components=components,
        precision=(field[0] & 0x7F) + 1,
        signed=bool(field[0] & 0x80),
        transformed=COD in headers and headers[COD][4] != 0,
    )


def _fields(layout: str, data: bytes | bytearray, position: int = 0) -> tuple[int, ...]:
    """Unpacks big-endian numbers.

    Raises:
        ImageRefused: The data is too short.
    """
    if position + struct.calcsize(layout) > len(data):
        raise refusal(f"whose JPEG 2000 codestream ends early: a header at byte {position} is truncated")
    return struct.unpack_from(layout, data, position)


def _marker(data: bytearray, position: int) -> int:
    return _fields(">H", data, position)[0]


def _check_tile_parts(data: bytearray, position: int, tiles: int) -> int:
    """Checks that all tile-parts are complete, and clears their field with the number of tile-parts.

    Args:
        data: The codestream, which is modified.
        position: Start of the first tile-part.
        tiles: Number of tiles of the image.

    Returns:
        End of the last tile-part.

    Raises:
        ImageRefused: A tile, or a part of one, is missing or truncated.
        TooComplex: There are too many tile-parts.
    """
    found: Counter[int] = Counter()
    claimed: dict[int, int] = {}
    content = len(data.rstrip(b"\0"))
    while position < content and (marker := _marker(data, position)) != EOC:
        if marker != SOT:
            raise refusal(f"whose JPEG 2000 codestream has no tile-part at byte {position}, where one is expected")
        _, tile, length, _, count = _fields(">HHLBB", data, position + 2)
        found[tile] += 1
        claimed[tile] = max(claimed.get(tile, 0), count)
        if found.total() > MAX_TILE_PARTS:
            raise TooComplex
        data[position + 11] = 0
        if length == 0:  # extends to the end marker
            if (end := data.rfind(struct.pack(">H", EOC))) < position:
                raise refusal("whose JPEG 2000 codestream ends early: its last tile-part has no end marker")
            length = end - position
        if length < 12 or position + length > len(data):
            raise refusal(
                "whose JPEG 2000 codestream ends early: "
                f"the tile-part at byte {position} has {len(data) - position} of {length} bytes"
            )
        position += length
    if position == len(data) and data[-1] == 0:  # may be padding to an even length
        raise refusal("whose JPEG 2000 codestream ends early: its last byte may be missing")
    _check_tiles(found, claimed, tiles)
    return position


def _check_tiles(found: Counter[int], claimed: dict[int, int], tiles: int) -> None:
    if len(found) != tiles:
        raise refusal(f"whose JPEG 2000 codestream has {len(found)} of {tiles} tiles")
    for tile, count in found.items():
        if count < claimed[tile]:
            raise refusal(f"whose JPEG 2000 codestream has {count} of {claimed[tile]} parts of tile {tile}")
