"""Decodes RLE Lossless (PS3.5 annex G) with bounded memory."""

import struct

import numpy as np
from numpy.typing import NDArray

from medserve_images.dicom.elements import refusal
from medserve_images.dicom.header import Layout


def decode_rle(source: bytes, layout: Layout) -> NDArray[np.uint8] | NDArray[np.uint16]:
    """Decodes one frame to [rows, columns, samples]. A frame has one segment per byte of each sample, high bytes first.

    pydicom's decoder expands a segment completely, up to 64 times its size; this one stops at the required size.

    Raises:
        ImageRefused: The number or the length of the segments does not match the frame.
        struct.error: The header is truncated.
    """
    size = layout.rows * layout.columns
    width = layout.allocated // 8
    (count,) = struct.unpack_from("<L", source)
    if count != layout.samples * width:
        raise refusal(f"whose RLE frame has {count} segments, expected {layout.samples * width}")
    if len(source) > (longest := 64 + 2 * count * size + 2 * count):
        raise refusal(f"whose RLE frame has {len(source)} bytes, expected at most {longest}")
    starts = (*struct.unpack_from(f"<{count}L", source, 4), len(source))
    planes = np.empty((layout.samples, size, width), np.uint8)
    for index in range(count):
        sample, byte = divmod(index, width)
        planes[sample, :, width - 1 - byte] = _segment(source[starts[index] : starts[index + 1]], size)
    words = planes.view(f"<u{width}").reshape(layout.samples, layout.rows, layout.columns)
    return words.transpose(1, 2, 0)


def _segment(source: bytes, size: int) -> NDArray[np.uint8]:
    """Decompresses PackBits up to a size."""
    unpacked = bytearray()
    position = 0
    while len(unpacked) < size and position + 1 < len(source):
        header = source[position]
        if header < 128:
            unpacked += source[position + 1 : position + 2 + header]
            position += 2 + header
        elif header > 128:
            unpacked += source[position + 1 : position + 2] * (257 - header)
            position += 2
        else:
            position += 1
    if len(unpacked) < size:
        raise refusal(f"whose RLE frame has a segment of {len(unpacked)} bytes, expected {size}")
    return np.frombuffer(unpacked, np.uint8, size)
