"""Decompresses the strips or tiles of a TIFF file and converts them to 8-bit samples."""

import io
import random
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL.TiffImagePlugin import TiffImageFile

from medserve_images.errors import ImageRefused
from medserve_images.raster.jpeg import END_OF_IMAGE, NOISE
from medserve_images.raster.tiff_directory import Tag, write_tiff

MAX_PART_BYTES = 128 * 1024 * 1024
"""Maximum decompressed size of a strip or tile, which is decompressed as a whole."""
MAX_TILE_PIXELS = 2048 * 2048
"""Maximum size of a tile that is larger than its image."""
_BAND_BYTES = 8 * 1024 * 1024
"""Decompressed strips or tiles held in memory at a time; more only if a single one is larger."""
_CHUNK_BYTES = _BAND_BYTES // 16
"""Decompressed bytes that are unpacked at a time; unpacking takes up to 16 times their memory."""
_NONE, _JPEG, _CCITT, _DEFLATE = 1, 7, frozenset({2, 3, 4}), frozenset({8, 32946})
_REVERSED_BITS = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))


def _ccitt_suffixes() -> tuple[bytes, ...]:
    """Returns byte sequences that do not change the pixels of a complete CCITT strip when appended to it.

    The end-of-line codes (0x001) are for Group 3, where libtiff skips everything up to the next one.
    """
    noise = random.Random(0)  # noqa: S311 (not for security)
    lines = [b"".join(b"\0\x10" + noise.randbytes(6) for _ in range(64)) for _ in range(2)]
    return bytes(512), noise.randbytes(512), *lines


_CCITT_SUFFIXES = _ccitt_suffixes()


@dataclass(frozen=True, slots=True)
class Layout:
    """How the samples are stored in a file.

    Attributes:
        width: Width of the image in pixels.
        height: Height of the image in pixels.
        samples: Samples per pixel.
        bits: Bits per sample, an unsigned integer: 1, 2, 4, 8, 10, 12, 14 or 16.
        scaled: Whether the samples are intensities; if not, they are palette indices.
        big_endian: Whether 16-bit samples are big-endian.
        separate: Whether each sample has its own plane of strips or tiles (PlanarConfiguration 2).
        compression: Value of the Compression tag.
        predictor: 1 for none, or 2 for horizontal differencing.
        tiled: Whether the parts are tiles; if not, they are strips.
        part_width: Width of a strip or tile in pixels.
        part_height: Height of a strip or tile in pixels.
        offsets: Offset of each part in the file.
        byte_counts: Encoded size of each part.
        decoder_tags: Other tags that the decompressor needs.
    """

    width: int
    height: int
    samples: int
    bits: int
    scaled: bool
    big_endian: bool
    separate: bool
    compression: int
    predictor: int
    tiled: bool
    part_width: int
    part_height: int
    offsets: tuple[int, ...]
    byte_counts: tuple[int, ...]
    decoder_tags: Mapping[Tag, int | tuple[int, ...] | bytes]

    @property
    def across(self) -> int:
        """Number of strips or tiles per row of parts."""
        return -(-self.width // self.part_width)

    @property
    def down(self) -> int:
        """Number of rows of strips or tiles."""
        return -(-self.height // self.part_height)

    @property
    def samples_together(self) -> int:
        """Number of samples per pixel that are stored in the same part."""
        return 1 if self.separate else self.samples

    def rows(self, index: int) -> int:
        """Returns the number of rows of a strip or tile; the last strip of a plane may have fewer than the others."""
        if self.tiled:
            return self.part_height
        return min(self.part_height, self.height - index % self.down * self.part_height)

    @property
    def row_bytes(self) -> int:
        """Decompressed size of one row of a strip or tile in bytes."""
        return -(-self.part_width * self.samples_together * self.bits // 8)


def read_samples(data: bytes, layout: Layout) -> NDArray[np.uint8]:
    """Decodes all samples.

    Args:
        data: Contents of the file.
        layout: How the samples are stored in it.

    Returns:
        uint8 [height, width, samples], scaled to 0 to 255 unless they are palette indices.

    Raises:
        ImageRefused: A strip or tile is too large.
        Exception: The file is corrupt; see `decode_raster`.
    """
    _check_parts(data, layout)
    result = np.empty((layout.height, layout.width, layout.samples), np.uint8)
    per_plane = layout.across * layout.down
    band = max(1, _BAND_BYTES // (layout.row_bytes * layout.part_height * layout.across))
    for plane in range(layout.samples if layout.separate else 1):
        channels = slice(plane, plane + 1) if layout.separate else slice(None)
        for first in range(0, layout.down, band):
            last = min(first + band, layout.down)
            rows = slice(first * layout.part_height, min(last * layout.part_height, layout.height))
            start = plane * per_plane
            indices = range(start + first * layout.across, start + last * layout.across)
            places = [(layout.offsets[index], layout.byte_counts[index]) for index in indices]
            parts = [data[offset : offset + count] for offset, count in places]
            raw = _decode(parts, rows.stop - rows.start, layout)
            step = max(1, _CHUNK_BYTES // (layout.row_bytes * layout.across))
            for top in range(0, len(raw), step):
                samples = _samples(raw[top : top + step], layout)
                place = slice(rows.start + top, rows.start + top + len(samples))
                result[place, :, channels] = _to_8_bits(samples, layout)
    return result


def _check_parts(data: bytes, layout: Layout) -> None:
    """Validates the number, size and position of the strips or tiles before any is decompressed."""
    if not (layout.part_width and layout.part_height and layout.width and layout.height):
        raise ValueError("a size is 0")
    if layout.tiled and layout.part_width * layout.samples_together * layout.bits % 8:
        raise ValueError("the rows of a tile are not whole bytes")
    padded = layout.across * layout.part_width * layout.down * layout.part_height
    allowed = 4 * layout.width * layout.height + MAX_TILE_PIXELS
    if layout.row_bytes * layout.part_height > MAX_PART_BYTES or (layout.tiled and padded > allowed):
        raise ImageRefused("is a TIFF whose strips or tiles are too large", limit="decompression")
    expected = layout.across * layout.down * (layout.samples if layout.separate else 1)
    if len(layout.offsets) != expected or len(layout.byte_counts) != expected:
        raise ValueError("the number of strips or tiles does not match its size")
    if sum(layout.byte_counts) > len(data):
        raise ValueError("its strips or tiles overlap, or extend beyond its end")
    for index, (offset, count) in enumerate(zip(layout.offsets, layout.byte_counts, strict=True)):
        if offset + count > len(data):
            raise ValueError("a strip or tile extends beyond its end")
        if layout.compression == _NONE and count < layout.row_bytes * layout.rows(index):
            raise ValueError("an uncompressed strip or tile is too short for its rows")


def _decode(parts: list[bytes], height: int, layout: Layout) -> NDArray[np.uint8]:
    """Decompresses strips or tiles that form whole rows of one plane to an array of `height` rows."""
    if layout.compression == _JPEG:
        return _decode_jpeg(parts, height, layout)
    if layout.compression in _CCITT:
        return _decode_ccitt(parts, height, layout)
    if layout.compression in _DEFLATE:
        _check_deflate(parts, layout)
    tags = {
        Tag.WIDTH: layout.across * layout.row_bytes,
        Tag.BITS_PER_SAMPLE: 8,
        Tag.SAMPLES_PER_PIXEL: 1,
        Tag.PHOTOMETRIC: 1,
    }
    size = {Tag.TILE_WIDTH: layout.row_bytes, Tag.TILE_LENGTH: layout.part_height}
    return _decompress(parts, height, layout, tags, size)


def _samples(raw: NDArray[np.uint8], layout: Layout) -> NDArray[np.uint8] | NDArray[np.uint16]:
    """Unpacks rows that `_decode` returned to samples, [rows, width, samples_together]."""
    if layout.compression in _CCITT | {_JPEG}:
        return raw.reshape(len(raw), layout.width, layout.samples)
    samples: NDArray[Any] = raw
    if layout.bits == 16:
        samples = raw.view(">u2" if layout.big_endian else "<u2").astype(np.uint16, copy=False)
    elif layout.bits != 8:
        samples = _unpack(raw, layout.across * layout.part_width * layout.samples_together, layout.bits)
    samples = samples.reshape(len(raw), layout.across, layout.part_width, layout.samples_together)
    if layout.predictor == 2:
        samples = np.cumsum(samples, axis=2, dtype=samples.dtype)
    return samples.reshape(len(raw), -1, layout.samples_together)[:, : layout.width]


def _check_deflate(parts: list[bytes], layout: Layout) -> None:
    """Verifies the checksum of each strip or tile; libtiff does not, since it stops at the last row.

    Raises:
        ValueError, zlib.error: A strip or tile is truncated or altered, or has more rows than it should.
    """
    for part in parts:
        decompressor = zlib.decompressobj()
        data = part.translate(_REVERSED_BITS) if layout.decoder_tags[Tag.FILL_ORDER] == 2 else part
        decompressor.decompress(data, layout.row_bytes * layout.part_height + 1)
        if not decompressor.eof:
            raise ValueError("a strip or tile does not end where it should")


def _decode_jpeg(parts: list[bytes], height: int, layout: Layout) -> NDArray[np.uint8]:
    """Decodes JPEG strips or tiles, with and without noise before their ends, as `decode_jpeg` does.

    Raises:
        ValueError: A part is truncated; libjpeg would fill in the rest.
    """
    parts = [part.rstrip(b"\0\xff") for part in parts]  # padding
    if not all(part.endswith(END_OF_IMAGE) for part in parts):
        raise ValueError("a JPEG strip or tile has no end-of-image marker")
    noisy = [part.removesuffix(END_OF_IMAGE) + NOISE + END_OF_IMAGE for part in parts]
    pixels = _decode_image(parts, height, layout)
    if not np.array_equal(pixels, _decode_image(noisy, height, layout)):
        raise ValueError("a JPEG strip or tile is truncated")
    return pixels


def _decode_ccitt(parts: list[bytes], height: int, layout: Layout) -> NDArray[np.uint8]:
    """Decodes CCITT strips or tiles.

    libtiff fills in the rest of a truncated part, and CCITT has no checksum or length. Bytes after a complete part have
    no influence on its pixels, so the parts are decoded with several suffixes and the results compared.

    Raises:
        ValueError: The pixels depend on the suffix, so a part is truncated.
    """
    reverse = layout.decoder_tags[Tag.FILL_ORDER] == 2
    suffixes = [suffix.translate(_REVERSED_BITS) if reverse else suffix for suffix in _CCITT_SUFFIXES]
    first, *others = (_decode_image([part + suffix for part in parts], height, layout) for suffix in suffixes)
    if not all(np.array_equal(first, other) for other in others):
        raise ValueError("a CCITT strip or tile is truncated")
    return first


def _decode_image(parts: list[bytes], height: int, layout: Layout) -> NDArray[np.uint8]:
    """Decodes strips or tiles of an image codec, which needs the pixel format."""
    tags: dict[Tag, int | tuple[int, ...]] = {
        Tag.WIDTH: layout.width,
        Tag.BITS_PER_SAMPLE: (layout.bits,) * layout.samples,
        Tag.SAMPLES_PER_PIXEL: layout.samples,
        Tag.PHOTOMETRIC: 1,
    }
    size = {Tag.TILE_WIDTH: layout.part_width, Tag.TILE_LENGTH: layout.part_height}
    pixels = _decompress(parts, height, layout, tags, size)
    return pixels.astype(np.uint8, copy=False)


def _decompress(
    parts: list[bytes], height: int, layout: Layout, tags: Mapping[Tag, int | tuple[int, ...]], tile: Mapping[Tag, int]
) -> NDArray[np.uint8]:
    """Writes strips or tiles to a new TIFF file and decodes it with libtiff; returns an array of the image's mode."""
    file = write_tiff(
        {
            Tag.LENGTH: height,
            Tag.COMPRESSION: layout.compression,
            Tag.PLANAR_CONFIGURATION: 1,
            **(tile if layout.tiled else {Tag.ROWS_PER_STRIP: layout.part_height}),
            **tags,
            **layout.decoder_tags,
        },
        parts,
        tiled=layout.tiled,
    )
    with TiffImageFile(io.BytesIO(file)) as image:
        image.load()
        return np.asarray(image)


def _unpack(raw: NDArray[np.uint8], row: int, bits: int) -> NDArray[np.uint16]:
    """Unpacks samples of up to 16 bits, most significant bits first, from rows of whole bytes.

    Args:
        raw: [height, bytes].
        row: Samples per row.
        bits: Bits per sample.

    Returns:
        [height, row].
    """
    start = np.arange(row) * bits
    padded = np.pad(raw, ((0, 0), (0, 2))).astype(np.uint32)
    three_bytes = padded[:, start // 8] << 16 | padded[:, start // 8 + 1] << 8 | padded[:, start // 8 + 2]
    samples: NDArray[np.uint16] = (three_bytes >> (24 - bits - start % 8).astype(np.uint32)).astype(np.uint16)
    return samples & np.uint16(2**bits - 1)


def _to_8_bits(samples: NDArray[np.uint8] | NDArray[np.uint16], layout: Layout) -> NDArray[np.uint8]:
    if layout.bits > 8:
        return (samples >> np.uint8(layout.bits - 8)).astype(np.uint8)
    if layout.bits < 8 and layout.scaled:
        return (samples * np.uint8(255 // (2**layout.bits - 1))).astype(np.uint8)
    return samples.astype(np.uint8, copy=False)
