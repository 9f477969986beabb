"""Writers of TIFF and PNG files of every kind, independent of the readers under test."""

import struct
import zlib
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Samples = NDArray[Any]
NONE, LZW, DEFLATE, PACK_BITS = 1, 5, 8, 32773
_SIZES = {1: "B", 3: "H", 4: "I", 5: "I", 7: "B", 16: "Q"}


def tiff(
    samples: Samples,
    bits: int,
    photometric: int,
    *,
    order: Literal["<", ">"] = "<",
    compression: int = NONE,
    predictor: int = 1,
    rows: int | None = None,
    tile: tuple[int, int] | None = None,
    separate: bool = False,
    fill_order: int = 1,
    big: bool = False,
    tags: Mapping[int, tuple[int, Sequence[int]]] | None = None,
    parts: list[bytes] | None = None,
    pages: int = 1,
) -> bytes:
    """Writes a TIFF file.

    Args:
        samples: Integers [height, width, samples].
        bits: Bits per sample.
        photometric: PhotometricInterpretation.
        order: Byte order.
        compression: NONE, LZW, DEFLATE or PACK_BITS; any with `parts`.
        predictor: 2 for horizontal differences.
        rows: Rows per strip; all by default.
        tile: Height and width of tiles, instead of strips.
        separate: One plane for each sample.
        fill_order: 2 reverses the bits of every byte.
        big: BigTIFF.
        tags: Additional or overridden tags: type and values; a tag without values is omitted.
        parts: Encoded strips instead of the samples.
        pages: Number of directories, all of the same image.
    """
    height, width, count = samples.shape
    size = tile or (rows or height, width)
    if parts is None:
        planes = np.split(samples, count, axis=2) if separate else [samples]
        cut = [part for plane in planes for part in _cut(plane, *size, pad=tile is not None)]
        parts = [_encode(part, bits, order, compression, predictor) for part in cut]
        if fill_order == 2:
            parts = [np.packbits(np.unpackbits(_bytes(part)).reshape(-1, 8)[:, ::-1]).tobytes() for part in parts]
    start = 16 if big else 8
    offsets = np.cumsum([start, *map(len, parts)])[:-1].tolist()
    places = (324, 325) if tile else (273, 279)
    every: dict[int, tuple[int, Sequence[int]]] = {
        256: (4, [width]),
        257: (4, [height]),
        258: (3, [bits] * count),
        259: (3, [compression]),
        262: (3, [photometric]),
        266: (3, [fill_order]),
        277: (3, [count]),
        284: (3, [2 if separate else 1]),
        317: (3, [predictor]),
        places[0]: (16 if big else 4, offsets),
        places[1]: (4, [len(part) for part in parts]),
    }
    every |= {322: (3, [size[1]]), 323: (3, [size[0]])} if tile else {278: (4, [size[0]])}
    every |= tags or {}
    return _directories(b"".join(parts), {tag: one for tag, one in every.items() if one[1]}, order, pages, big=big)


def _bytes(data: bytes) -> NDArray[np.uint8]:
    return np.frombuffer(data, np.uint8)


def _cut(plane: Samples, height: int, width: int, *, pad: bool) -> Iterator[Samples]:
    for top in range(0, plane.shape[0], height):
        for left in range(0, plane.shape[1], width):
            part = plane[top : top + height, left : left + width]
            missing = (height - part.shape[0], width - part.shape[1]) if pad else (0, 0)
            yield np.pad(part, ((0, missing[0]), (0, missing[1]), (0, 0)))


def _encode(part: Samples, bits: int, order: str, compression: int, predictor: int) -> bytes:
    if predictor == 2:
        part = np.diff(part, axis=1, prepend=0) % 2**bits
    if bits in {8, 16, 32}:
        raw = part.astype(f"{order}u{bits // 8}").tobytes()
        row = part.shape[1] * part.shape[2] * bits // 8
    else:
        binary = (part[..., None] >> np.arange(bits - 1, -1, -1)) & 1
        packed = np.packbits(binary.reshape(len(part), -1).astype(np.uint8), axis=1)
        raw, row = packed.tobytes(), packed.shape[1]
    match compression:
        case 8:
            return zlib.compress(raw)
        case 5:
            return _lzw(raw)
        case 32773:
            lines = [raw[start : start + row] for start in range(0, len(raw), row)]
            return b"".join(_literal_runs(line) for line in lines)
    return raw


def _literal_runs(line: bytes) -> bytes:
    return b"".join(
        bytes([len(line[start : start + 128]) - 1]) + line[start : start + 128] for start in range(0, len(line), 128)
    )


def _lzw(raw: bytes) -> bytes:
    """Encodes as literal 9-bit codes, with a clear code before the table would require 10 bits."""
    codes: list[int] = []
    for start in range(0, len(raw), 250):
        codes += [256, *raw[start : start + 250]]
    codes.append(257)
    binary = (np.array(codes)[:, None] >> np.arange(8, -1, -1)) & 1
    return np.packbits(binary.reshape(-1).astype(np.uint8)).tobytes()


def _directories(
    body: bytes, tags: dict[int, tuple[int, Sequence[int]]], order: str, pages: int, *, big: bool
) -> bytes:
    word, start = ("Q", 16) if big else ("I", 8)
    entries = b""
    for tag, (kind, values) in sorted(tags.items()):
        encoded = struct.pack(f"{order}{len(values)}{_SIZES[kind]}", *values)
        count = len(values) // 2 if kind == 5 else len(values)
        if len(encoded) > struct.calcsize(word):
            place = struct.pack(f"{order}{word}", start + len(body))
            body += encoded + bytes(len(encoded) % 2)
        else:
            place = encoded.ljust(struct.calcsize(word), b"\0")
        entries += struct.pack(f"{order}HH{word}", tag, kind, count) + place
    head = struct.pack(f"{order}{'Q' if big else 'H'}", len(tags)) + entries
    length = len(head) + struct.calcsize(word)
    positions = [start + len(body) + page * length for page in range(pages)] + [0]
    directories = b"".join(head + struct.pack(f"{order}{word}", following) for _, following in pairwise(positions))
    mark = b"II" if order == "<" else b"MM"
    version = struct.pack(f"{order}HHH", 43, 8, 0) if big else struct.pack(f"{order}H", 42)
    return mark + version + struct.pack(f"{order}{word}", positions[0]) + body + directories


def png_chunk(kind: bytes, data: bytes) -> bytes:
    """Returns a chunk with its checksum."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


# First row and column, and the steps, of the passes of Adam7.
_PASSES = [(0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1)]


def png(samples: Samples, depth: int, color: int, *chunks: tuple[bytes, bytes], interlaced: bool = False) -> bytes:
    """Writes a PNG file.

    Args:
        samples: Integers [height, width, samples].
        depth: Bits of a sample.
        color: Color type.
        chunks: Additional chunks before the pixels.
        interlaced: By Adam7.
    """
    images = [samples]
    if interlaced:
        images = [samples[row::row_step, column::column_step] for row, column, row_step, column_step in _PASSES]
    lines = b""
    for image in images:
        for line in image if image.size else []:
            lines += b"\0" + _encode(line[None], depth, ">", NONE, 1)
    header = struct.pack(">IIBBBBB", samples.shape[1], samples.shape[0], depth, color, 0, 0, int(interlaced))
    every = [(b"IHDR", header), *chunks, (b"IDAT", zlib.compress(lines)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(png_chunk(*one) for one in every)
