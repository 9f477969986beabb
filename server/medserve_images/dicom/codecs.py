"""Two decoders that pydicom lacks: lossless JPEG without code under GPL, and RLE that can't be made to explode."""

import re
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import cycle, islice

import numpy as np
from numpy.typing import NDArray
from pydicom import uid
from pydicom.pixels.decoders.base import DecodeRunner, get_decoder

PLUGIN = "medserve"
DECODER_DEPENDENCIES = {uid.RLELossless: (), uid.JPEGLosslessSV1: (), uid.JPEGLossless: ()}

# Compressed bytes decoded at once: what is computed for each of their bits stays small.
CHUNK = 64 * 1024


def is_available(syntax: str) -> bool:
    """Part of what pydicom asks of a plugin."""
    return syntax in DECODER_DEPENDENCIES


def add_plugins() -> None:
    """Tells pydicom of these decoders; to be called once."""
    get_decoder(uid.RLELossless).add_plugin(PLUGIN, (__name__, "decode_rle_frame"))
    for syntax in (uid.JPEGLosslessSV1, uid.JPEGLossless):
        get_decoder(syntax).add_plugin(PLUGIN, (__name__, "decode_jpeg_lossless_frame"))


def decode_rle_frame(source: bytes, runner: DecodeRunner) -> bytes:
    """Decodes one frame of RLE Lossless (PS3.5 annex G): one segment for each byte of each sample, high bytes first.

    pydicom's own decoder expands a segment as far as it goes, 64 times its size; this one stops when it has enough.

    Raises:
        ValueError: the segments are not as many, or not as long, as the frame needs.
    """
    size = runner.rows * runner.columns
    width = runner.bits_allocated // 8
    (count,) = struct.unpack_from("<L", source)
    if count != runner.samples_per_pixel * width or len(source) > 64 + 2 * count * size + 2 * count:
        raise ValueError("the RLE segments are not as many, or far longer, than the frame needs")
    starts = (*struct.unpack_from(f"<{count}L", source, 4), len(source))
    planes = np.empty((runner.samples_per_pixel, size, width), np.uint8)
    for index in range(count):
        sample, byte = divmod(index, width)
        planes[sample, :, width - 1 - byte] = _rle_segment(source[starts[index] : starts[index + 1]], size)
    runner.set_option("planar_configuration", 1)
    return planes.tobytes()


def _rle_segment(source: bytes, size: int) -> NDArray[np.uint8]:
    """Unpacks PackBits up to a size."""
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
        raise ValueError("an RLE segment is too short")
    return np.frombuffer(unpacked, np.uint8, size)


@dataclass(frozen=True, slots=True)
class JpegHeader:
    """The headers of a JPEG codestream (ISO/IEC 10918-1 annex B) up to its first scan."""

    process: int
    """Second byte of its marker: 0xC3 for lossless JPEG."""
    precision: int
    rows: int
    columns: int
    components: int
    sampling: bytes
    """Sampling factors of each component; 0x11 where every pixel has its own."""
    tables: tuple[bytes, ...]
    """Contents of its DHT segments."""
    restart_interval: int
    scan: bytes
    """Content of the scan header."""
    data: bytes
    """All that follows it."""


def jpeg_header(source: bytes) -> JpegHeader:
    """Reads the markers before the first scan.

    Raises:
        ValueError, struct.error: there is no such header.
    """
    if source[:2] != b"\xff\xd8":
        raise ValueError("this is no JPEG codestream")
    position, frame, tables, interval = 2, None, [], 0
    while True:
        prefix, marker, length = struct.unpack_from(">BBH", source, position)
        if prefix != 0xFF or length < 2:
            raise ValueError("a marker is missing")
        content = source[position + 4 : position + 2 + length]
        position += 2 + length
        if marker in {0xC0, 0xC1, 0xC2, 0xC3} and frame is None:
            frame = marker, content
        elif marker == 0xC4:
            tables.append(content)
        elif marker == 0xDD:
            (interval,) = struct.unpack(">H", content)
        elif marker == 0xDA:
            break
    if frame is None:
        raise ValueError("there is no frame header")
    process, fields = frame
    precision, rows, columns, components = struct.unpack_from(">BHHB", fields)
    return JpegHeader(
        process=process,
        precision=precision,
        rows=rows,
        columns=columns,
        components=components,
        sampling=fields[7::3],
        tables=tuple(tables),
        restart_interval=interval,
        scan=content,
        data=source[position:],
    )


def decode_jpeg_lossless_frame(source: bytes, runner: DecodeRunner) -> bytes:
    """Decodes lossless JPEG of first-order prediction (ISO/IEC 10918-1 annex H, selection value 1).

    Raises:
        ValueError: it is of another process or selection value, or broken.
    """
    header = jpeg_header(source)
    components = header.scan[0]
    if (
        (header.process, header.components) != (0xC3, components)
        or header.restart_interval
        or header.sampling != b"\x11" * components
    ):
        raise ValueError("only one scan of all components, without subsampling and restarts, is read")
    selection, _, transform = header.scan[1 + 2 * components : 4 + 2 * components]
    if selection != 1 or transform & 0x0F or not 2 <= header.precision <= runner.bits_allocated:
        raise ValueError("only selection value 1 without point transform is read")
    tables = _huffman_tables(header.tables)
    chosen = [tables[header.scan[2 + 2 * component] >> 4] for component in range(components)]
    differences = _differences(header.data, chosen, header.rows * header.columns * components)
    samples = differences.reshape(header.rows, header.columns, components)
    # Each sample is predicted by its left neighbour, the first of a line by the one above it, modulo 2 ** 16.
    samples[0, 0] += np.uint16(1 << (header.precision - 1))
    samples[:, 0] = np.cumsum(samples[:, 0], axis=0, dtype=np.uint16)
    samples = np.cumsum(samples, axis=1, dtype=np.uint16)
    runner.set_option("planar_configuration", 0)
    return samples.astype(f"<u{runner.bits_allocated // 8}").tobytes()


@dataclass(frozen=True, slots=True)
class HuffmanTable:
    """What the next 16 bits of a scan mean, for each of their 65,536 values; all zero where they are no code."""

    length: NDArray[np.uint8]
    """Bits of the code."""
    category: NDArray[np.uint8]
    """0 to 16: so many further bits hold the difference, except that 16 needs none."""
    step: NDArray[np.uint8]
    """Bits to the next code."""


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
        raise ValueError("a Huffman table makes no sense")
    length, category = np.zeros((2, 65536), np.uint8)
    place = 0  # a code of n bits stands for 2 ** (16 - n) windows, and the codes are in ascending order
    for bits, symbol in zip(lengths.tolist(), symbols, strict=True):
        end = place + (1 << (16 - bits))
        if end > 65536:
            raise ValueError("a Huffman table has more codes than there are")
        length[place:end], category[place:end] = bits, symbol
        place = end
    return HuffmanTable(length, category, length + category % 16)


def _differences(data: bytes, tables: Sequence[HuffmanTable], count: int) -> NDArray[np.uint16]:
    """Decodes the differences of a scan, modulo 2 ** 16; components take turns.

    Where a code begins is known only when the one before it is read: the loop does just that step, and all the rest
    is done for a chunk at once.
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
    """The differences whose codes begin at these bits (ISO/IEC 10918-1 table H.2)."""
    window = windows[places]
    length = table.length[window].astype(np.int64)
    category = table.category[window].astype(np.int64)
    if not length.all():
        raise ValueError("the scan has bits that are no code")
    begin = places >> 3
    bits = sum(data[begin + index].astype(np.int64) << (32 - 8 * index) for index in range(5))
    value = bits >> (40 - (places & 7) - length - category % 16) & ((1 << category % 16) - 1)
    negative = (value < 1 << np.maximum(category - 1, 0)) & (category > 0) & (category < 16)
    return np.where(category == 16, 32768, np.where(negative, value - (1 << category) + 1, value))
