"""Decodes lossless JPEG with first-order prediction (ISO/IEC 10918-1 annex H), without GPL code."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import cycle, islice

import numpy as np
from numpy.typing import NDArray

from medserve_images.dicom.codecs.jpeg import check_size, jpeg_header
from medserve_images.dicom.elements import refusal
from medserve_images.dicom.header import Layout

# Compressed bytes decoded at a time, which bounds the memory for the arrays with one entry per bit.
CHUNK = 64 * 1024


def decode_jpeg_lossless(source: bytes, layout: Layout) -> tuple[NDArray[np.uint16], int]:
    """Decodes one frame to [rows, columns, samples] and its precision in bits.

    Raises:
        ImageRefused: The process, the selection value or the size of the codestream is not supported.
        LookupError, ValueError, struct.error: The codestream is corrupt.
    """
    header = jpeg_header(source)
    check_size(header.columns, header.rows, header.components, layout)
    components = header.scan[0]
    if header.process != 0xC3:
        raise refusal(f"whose JPEG frame is of process 0x{header.process:X}, expected 0xC3 (lossless)")
    if header.components != components or header.sampling != b"\x11" * components:
        raise refusal("whose lossless JPEG frame has several scans or subsampling, expected neither")
    if any(any(interval) for interval in header.contents(0xDD)):
        raise refusal("whose lossless JPEG frame has restart intervals, expected none")
    selection, _, transform = header.scan[1 + 2 * components : 4 + 2 * components]
    if selection != 1 or transform & 0x0F:
        raise refusal(
            f"whose lossless JPEG frame has selection value {selection} and point transform {transform & 0x0F}, "
            "expected 1 and 0"
        )
    if not 2 <= header.precision <= layout.allocated:
        raise refusal(f"whose lossless JPEG frame has {header.precision} bits, expected 2 to {layout.allocated}")
    tables = _huffman_tables(header.contents(0xC4))
    chosen = [tables[header.scan[2 + 2 * component] >> 4] for component in range(components)]
    differences = _differences(header.data, chosen, header.rows * header.columns * components)
    samples = differences.reshape(header.rows, header.columns, components)
    # Each sample is predicted by its left neighbor, the first of a row by the one above it, modulo 2 ** 16.
    samples[0, 0] += np.uint16(1 << (header.precision - 1))
    samples[:, 0] = np.cumsum(samples[:, 0], axis=0, dtype=np.uint16)
    return np.cumsum(samples, axis=1, dtype=np.uint16), header.precision


@dataclass(frozen=True, slots=True)
class HuffmanTable:
    """Huffman lookup tables, indexed by the next 16 bits of a scan; all zero if the bits are not a valid code."""

    length: NDArray[np.uint8]
    """Length of the code in bits."""
    category: NDArray[np.uint8]
    """0 to 16: number of additional bits that encode the difference; 16 has none."""
    step: NDArray[np.uint8]
    """Number of bits to the start of the next code."""


def _huffman_tables(segments: Sequence[bytes]) -> dict[int, HuffmanTable]:
    """Builds the tables of DHT segments (ISO/IEC 10918-1 annex C), by identifier."""
    tables = {}
    for segment in segments:
        position = 0
        while position < len(segment):
            identifier, counts = segment[position], segment[position + 1 : position + 17]
            symbols = segment[position + 17 : position + 17 + sum(counts)]
            position += 17 + len(symbols)
            tables[identifier & 0x0F] = _huffman_table(counts, symbols)
    return tables


def _huffman_table(counts: bytes, symbols: bytes) -> HuffmanTable:
    lengths = np.repeat(np.arange(1, 17), np.frombuffer(counts, np.uint8))
    if len(symbols) != len(lengths) or max(symbols, default=17) > 16:
        raise ValueError("a Huffman table is invalid")
    length, category = np.zeros((2, 65536), np.uint8)
    place = 0  # a code of n bits covers 2 ** (16 - n) entries, and the codes are in ascending order
    for bits, symbol in zip(lengths.tolist(), symbols, strict=True):
        end = place + (1 << (16 - bits))
        if end > 65536:
            raise ValueError("a Huffman table has too many codes")
        length[place:end], category[place:end] = bits, symbol
        place = end
    return HuffmanTable(length, category, length + category % 16)


def _differences(data: bytes, tables: Sequence[HuffmanTable], count: int) -> NDArray[np.uint16]:
    """Decodes the differences of a scan, modulo 2 ** 16; the components are interleaved.

    The start of a code is known only after decoding the previous one, so this step is done in a Python loop; everything
    else is vectorized per chunk.
    """
    if marker := re.search(rb"\xff[^\x00]", data):
        data = data[: marker.start()]
    data = data.replace(b"\xff\x00", b"\xff")
    padded = np.frombuffer(data + bytes(CHUNK + 8), np.uint8)
    differences = np.empty(count, np.uint16)
    done = bit = 0
    for start in range(0, len(data), CHUNK):
        part = padded[start : start + CHUNK + 2].astype(np.uint32)
        words = part[:-2] << 16 | part[1:-1] << 8 | part[2:]
        windows = (words[:, None] >> np.arange(8, 0, -1, dtype=np.uint32) & 0xFFFF).astype(np.uint16).ravel()
        steps = [table.step[windows].tobytes() for table in tables]
        turn = done % len(steps)
        places: list[int] = []
        for step in islice(cycle(steps[turn:] + steps[:turn]), count - done):
            if bit >= 8 * CHUNK:
                break
            places.append(bit)
            bit += step[bit]
        found = np.array(places, np.int64)
        for component, table in enumerate(tables):
            first = (component - done) % len(tables)
            own = found[first :: len(tables)]
            differences[done + first : done + len(found) : len(tables)] = _values(padded[start:], own, windows, table)
        done += len(found)
        bit -= 8 * CHUNK
    if done < count or bit + 8 * CHUNK * -(-len(data) // CHUNK) > 8 * len(data):
        raise ValueError("the scan is too short")
    return differences


def _values(
    data: NDArray[np.uint8], places: NDArray[np.int64], windows: NDArray[np.uint16], table: HuffmanTable
) -> NDArray[np.int64]:
    """Returns the differences whose codes start at these bit positions (ISO/IEC 10918-1 table H.2)."""
    window = windows[places]
    length = table.length[window].astype(np.int64)
    category = table.category[window].astype(np.int64)
    if not length.all():
        raise ValueError("the scan contains an invalid code")
    begin = places >> 3
    bits = sum(data[begin + index].astype(np.int64) << (32 - 8 * index) for index in range(5))
    value = bits >> (40 - (places & 7) - length - category % 16) & ((1 << category % 16) - 1)
    negative = (value < 1 << np.maximum(category - 1, 0)) & (category > 0) & (category < 16)
    return np.where(category == 16, 32768, np.where(negative, value - (1 << category) + 1, value))
