"""Decodes PNG files (W3C Portable Network Graphics, third edition) with Pillow, and checks what Pillow does not."""

import struct
import zlib
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from medserve_images.errors import ImageRefused
from medserve_images.raster.bounds import BoundedFile, check_size, max_parts, too_many
from medserve_images.raster.display import exif_orientation, profile_warnings, transparent, upright
from medserve_images.target import ImageLimits
from medserve_images.warning import ImageWarning, depth_reduced, range_unused

_GRAY, _RGB, _PALETTE, _GRAY_ALPHA = 0, 2, 3, 4
_ONCE = {b"IHDR", b"PLTE", b"tRNS", b"sBIT", b"gAMA", b"sRGB", b"iCCP", b"cICP", b"acTL"}
_SRGB_GAMMA = 45455 / 100_000
# Code points of ITU-T H.273 (cICP). The transfer functions are those of sRGB and of BT.709 and its equals, which are
# shown alike.
_SDR_TRANSFER = frozenset({1, 6, 13, 14, 15})
_SRGB_PRIMARIES, _RGB_MATRIX, _FULL_RANGE = 1, 0, 1
_SAMPLES = {_GRAY: 1, _RGB: 3, _PALETTE: 1, _GRAY_ALPHA: 2, 6: 4}
# Left, top, and steps of the passes of an interlaced image (section 8.1).
_ADAM7 = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
_INFLATED_BYTES = 1024 * 1024


def decode_png(data: bytes, limits: ImageLimits, warnings: list[ImageWarning]) -> Image.Image:
    """Decodes a PNG file to mode L or RGB.

    Raises:
        ImageRefused: It is animated, has transparent pixels, is not shown as sRGB (gAMA, cICP), or exceeds a limit.
        Exception: It is broken; see `decode_raster`.
    """
    chunks = _chunks(data)
    width, height, depth, color = struct.unpack_from(">IIBB", chunks[b"IHDR"])
    check_size(width, height, len(data), limits)
    _check_rendering(chunks)
    with Image.open(BoundedFile(data), formats=("PNG",)) as image:
        if image.size != (width, height):
            raise ValueError("a later header says another size")
        image.load()
        _check_rows(data, chunks[b"IHDR"])
        orientation = exif_orientation(image)
        warnings.extend(profile_warnings(image.info.get("icc_profile")))
        warnings.extend(_primaries_warnings(chunks.get(b"cICP")))
        if color != _PALETTE:  # Pillow does not scale it to the samples
            image.info.pop("transparency", None)
        opaque = _opaque(image, color, depth, chunks.get(b"tRNS"))
    if depth == 16:
        warnings.append(depth_reduced(16))
    warnings.extend(_range_warnings(opaque, color, depth, chunks.get(b"sBIT")))
    return upright(opaque, orientation)


def _chunks(data: bytes) -> dict[bytes, bytes]:
    """The chunks before the pixels that say how these are shown.

    Raises:
        ImageRefused: There are too many chunks, or one twice that may be there once.
        ValueError, struct.error: There is no header, or there are no pixels.
    """
    found: dict[bytes, bytes] = {}
    position = 8
    for _ in range(max_parts(data)):
        length, name = struct.unpack_from(">I4s", data, position)
        if name == b"IDAT":
            return found
        if name in _ONCE:
            if name in found:
                raise too_many("is a PNG with several chunks of a kind that may be there once")
            found[name] = data[position + 8 : position + 8 + length]
        position += 12 + length
    raise too_many("consists of too many tiny parts")


def _check_rows(data: bytes, header: bytes) -> None:
    """Refuses a file that does not hold all of its rows; Pillow would leave the others black.

    Raises:
        ValueError: Rows are missing.
    """
    width, height, depth, color, *_, interlaced = struct.unpack(">IIBBBBB", header[:13])
    passes = _ADAM7 if interlaced else ((0, 0, 1, 1),)
    missing = 0
    for left, top, across, down in passes:
        columns, rows = -(-(width - left) // across), -(-(height - top) // down)
        if columns > 0 and rows > 0:
            missing += rows * (1 + -(-columns * depth * _SAMPLES[color] // 8))
    inflate = zlib.decompressobj()
    for chunk in _image_data(data):
        rest = chunk
        while rest and missing > 0:
            missing -= len(inflate.decompress(rest, _INFLATED_BYTES))
            rest = inflate.unconsumed_tail
    if missing > 0:
        raise ValueError("rows are missing")


def _image_data(data: bytes) -> Iterator[bytes]:
    """The contents of the IDAT chunks."""
    position, name = 8, b""
    while name != b"IEND" and position + 8 <= len(data):
        length, name = struct.unpack_from(">I4s", data, position)
        if name == b"IDAT":
            yield data[position + 8 : position + 8 + length]
        position += 12 + length


def _check_rendering(chunks: dict[bytes, bytes]) -> None:
    """Refuses what a viewer would not show as the samples stand."""
    if b"acTL" in chunks:
        frames = int.from_bytes(chunks[b"acTL"][:4])
        raise ImageRefused(f"is an animated PNG ({frames} frames), expected one; send each frame as its own image")
    if b"cICP" in chunks:
        _check_code_points(chunks[b"cICP"])
    if b"gAMA" in chunks and not chunks.keys() & {b"sRGB", b"iCCP", b"cICP"}:
        gamma = int.from_bytes(chunks[b"gAMA"]) / 100_000
        if not 0.95 < gamma / _SRGB_GAMMA < 1.05:  # the threshold of libpng
            raise ImageRefused(f"is a PNG with a gamma of {gamma:g} (gAMA); expected {_SRGB_GAMMA:g}, that of sRGB")


def _check_code_points(content: bytes) -> None:
    """Refuses code points (cICP) of samples that would be shown otherwise than as sRGB.

    Raises:
        ImageRefused: They are those of high dynamic range, of an unusual transfer function, or not of full-range RGB.
        struct.error: There are not four of them.
    """
    _, transfer, matrix, full_range = struct.unpack("4B", content)
    if transfer not in _SDR_TRANSFER:
        name = {8: ", linear", 16: ", PQ: high dynamic range", 18: ", HLG: high dynamic range"}.get(transfer, "")
        raise ImageRefused(f"is a PNG with transfer function {transfer} (cICP{name}); send it as sRGB")
    if matrix != _RGB_MATRIX:
        raise ImageRefused(f"is a PNG with matrix coefficients {matrix} (cICP); expected {_RGB_MATRIX}, those of RGB")
    if full_range != _FULL_RANGE:
        raise ImageRefused("is a PNG with samples of narrow range (cICP); send it as sRGB, which is of full range")


def _primaries_warnings(code_points: bytes | None) -> list[ImageWarning]:
    """Says that color primaries are not applied, unless they are those of sRGB."""
    if not code_points or code_points[0] == _SRGB_PRIMARIES:
        return []
    message = f"has color primaries {code_points[0]} (cICP) other than those of sRGB, which are not applied"
    return [ImageWarning("PROFILE_IGNORED", message)]


def _opaque(image: Image.Image, color: int, depth: int, transparency: bytes | None) -> Image.Image:
    """The image without alpha channel or palette, in mode L or RGB.

    Raises:
        ImageRefused: A pixel of it is transparent.
    """
    if color == _PALETTE:
        colors = len(image.palette.palette) // 3 if image.palette else 0
        if _peak(image) >= colors:
            raise ImageRefused("has pixels beyond the end of its palette, whose color is undefined")
        if image.has_transparency_data and image.convert("RGBA").getchannel("A").getextrema() != (255, 255):
            raise transparent()
        return image.convert("RGB")
    if color >= _GRAY_ALPHA:
        if image.getchannel("A").getextrema() != (255, 255):
            raise transparent()
        # Pillow holds gray and alpha of 16 bits as RGBA.
        return image.getchannel(0) if color == _GRAY_ALPHA else image.convert("RGB")
    if transparency is not None and _has_color(np.asarray(image), transparency, color, depth):
        raise transparent()
    if image.mode == "I;16":
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    return image.convert("L") if image.mode == "1" else image


def _peak(image: Image.Image) -> int:
    """The greatest sample of an image of mode L, P or RGB."""
    return int(np.max(image.getextrema()))


def _has_color(pixels: NDArray[np.generic], transparency: bytes, color: int, depth: int) -> bool:
    """Whether a pixel has the color that tRNS makes transparent.

    Pillow keeps the upper 8 bits of 16-bit RGB, so of these images a pixel of nearly that color counts too.
    """
    samples = struct.unpack(">H" if color == _GRAY else ">HHH", transparency)
    top = 2**depth - 1
    if color == _RGB:
        wanted = [sample >> 8 if depth == 16 else sample & 0xFF for sample in samples]
        return bool((pixels == np.array(wanted, np.uint8)).all(axis=2).any())
    sample = samples[0] & top
    if pixels.dtype == np.bool_ or depth == 16:
        return bool((pixels == sample).any())
    return bool((pixels == sample * (255 // top)).any())


def _range_warnings(image: Image.Image, color: int, depth: int, significant: bytes | None) -> list[ImageWarning]:
    """Warns of 16-bit samples below 2^12, and of samples below 2^sBIT: nothing scales them up."""
    if color == _PALETTE:
        return []
    limit = 2**12 if depth == 16 else 0
    if significant:
        bits = max(significant[: 1 if color in {_GRAY, _GRAY_ALPHA} else 3])
        if bits < depth:
            limit = max(limit, 2**bits)
    if not limit:
        return []
    # Of 16 bits the upper 8 are left, and the limit is a multiple of 256; fewer than 8 bits were spread to 8.
    top = 2**depth - 1
    peak = _peak(image)
    below = peak < limit >> 8 if depth == 16 else peak * top // 255 < limit
    return [range_unused(limit, depth)] if below else []
