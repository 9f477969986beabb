"""Decodes sequential JPEG (ISO/IEC 10918-1), and parses the headers that lossless JPEG shares with it."""

import io
import struct
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from medserve_images.dicom.elements import MAX_SEGMENTS, TooComplex, refusal
from medserve_images.dicom.header import Layout
from medserve_images.warning import ImageWarning

MAX_SCANS = 100  # each takes a pass over all pixels, even if it has few bytes
FRAME_HEADERS = {0xC0, 0xC1, 0xC2, 0xC3}


@dataclass(frozen=True, slots=True)
class JpegHeader:
    """The headers of a JPEG codestream (annex B) up to its first scan."""

    segments: tuple[tuple[int, bytes], ...]
    """Second byte of the marker, and content, of each segment."""
    process: int
    """Second byte of the frame header's marker: 0xC3 for lossless JPEG."""
    precision: int
    rows: int
    columns: int
    components: int
    identifiers: bytes
    """Identifiers of the components."""
    sampling: bytes
    """Sampling factors of each component; 0x11 without subsampling."""
    scan: bytes
    """Content of the scan header."""
    data: bytes
    """Everything after the scan header."""

    def contents(self, marker: int) -> list[bytes]:
        """Returns the contents of all segments with a marker."""
        return [content for found, content in self.segments if found == marker]


def jpeg_header(source: bytes) -> JpegHeader:
    """Parses the segments up to the first scan.

    Raises:
        ImageRefused: The codestream has no valid header.
        TooComplex: It has too many segments.
        struct.error: The codestream is truncated.
    """
    if source[:2] != b"\xff\xd8":
        raise refusal("whose compressed frame is not a JPEG codestream")
    position, segments = 2, []
    for _ in range(MAX_SEGMENTS):
        prefix, marker, length = struct.unpack_from(">BBH", source, position)
        if (prefix, marker) == (0xFF, 0xFF):  # a fill byte
            position += 1
            continue
        if prefix != 0xFF or length < 2:
            raise refusal("whose JPEG codestream lacks a marker before its first scan")
        segments.append((marker, source[position + 4 : position + 2 + length]))
        position += 2 + length
        if marker == 0xDA:
            break
    else:
        raise TooComplex
    frames = [(marker, content) for marker, content in segments if marker in FRAME_HEADERS]
    if len(frames) != 1:
        raise refusal(f"whose JPEG codestream has {len(frames)} frame headers, expected 1")
    process, fields = frames[0]
    precision, rows, columns, components = struct.unpack_from(">BHHB", fields)
    return JpegHeader(
        segments=tuple(segments),
        process=process,
        precision=precision,
        rows=rows,
        columns=columns,
        components=components,
        identifiers=fields[6::3][:components],
        sampling=fields[7::3][:components],
        scan=segments[-1][1],
        data=source[position:],
    )


def check_size(columns: int, rows: int, components: int, layout: Layout) -> None:
    """Checks the size of a codestream against the file's header before decoding.

    Raises:
        ImageRefused: The size or the number of components differs.
    """
    if (columns, rows) != (layout.columns, layout.rows):
        raise refusal(f"of {layout.columns} x {layout.rows} pixels whose compressed frame is {columns} x {rows}")
    if components != layout.samples:
        raise refusal(f"whose SamplesPerPixel is {layout.samples}, but its compressed frame has {components}")


def decode_jpeg(source: bytes, layout: Layout, warnings: list[ImageWarning]) -> NDArray[np.uint8]:
    """Decodes one frame to [rows, columns, samples], colors to RGB.

    Raises:
        ImageRefused: The codestream is not 8-bit sequential JPEG, or has a different size.
        Exception: Any exception that Pillow raises for corrupt codestreams.
    """
    header = jpeg_header(source)
    check_size(header.columns, header.rows, header.components, layout)
    if header.process not in {0xC0, 0xC1} or header.precision != 8:
        raise refusal(
            f"whose JPEG frame is of process 0x{header.process:X} and {header.precision} bits, "
            "expected sequential JPEG (0xC0 or 0xC1) of 8 bits"
        )
    if (scans := header.data.count(b"\xff\xda") + 1) > MAX_SCANS:
        raise refusal(f"whose JPEG frame has {scans} scans, expected at most {MAX_SCANS}")
    with Image.open(io.BytesIO(_with_color_space(header, layout, warnings)), formats=("JPEG",)) as image:
        return np.asarray(image, np.uint8).reshape(layout.rows, layout.columns, layout.samples)


def _with_color_space(header: JpegHeader, layout: Layout, warnings: list[ImageWarning]) -> bytes:
    """Replaces the application markers of a color codestream by one Adobe marker that declares YCbCr or RGB."""
    converted = layout.photometric != "RGB"
    if layout.samples == 3 and (declared := _declares_ycbcr(header)) is not None and declared != converted:
        converted = declared
        space = "YCbCr" if declared else "RGB"
        message = (
            f"read as {space}, as declared by its JPEG codestream, which contradicts its PhotometricInterpretation"
        )
        warnings.append(ImageWarning("ELEMENT_IGNORED", message))
    adobe = b"Adobe" + struct.pack(">HHHB", 100, 0, 0, converted and layout.samples == 3)
    segments = [(0xEE, adobe)] if layout.samples == 3 else []
    segments += [(marker, content) for marker, content in header.segments if not 0xE0 <= marker <= 0xEF]
    head = b"".join(struct.pack(">BBH", 0xFF, marker, len(content) + 2) + content for marker, content in segments)
    return b"\xff\xd8" + head + header.data


def _declares_ycbcr(header: JpegHeader) -> bool | None:
    """Returns whether the codestream declares its colors as YCbCr (True) or RGB (False); None if it does neither."""
    for content in header.contents(0xEE):
        if content.startswith(b"Adobe") and len(content) >= 12:
            return content[11] != 0
    if any(content.startswith(b"JFIF\0") for content in header.contents(0xE0)):
        return True
    if header.identifiers == b"RGB":
        return False
    return True if len(set(header.sampling)) > 1 else None
