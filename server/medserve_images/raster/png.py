"""Decodes PNG files (W3C Portable Network Graphics, third edition) with Pillow, with checks that Pillow lacks."""

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
# Code points of ITU-T H.273 (cICP). The transfer functions are those of sRGB, BT.709 and its equivalents, which viewers
# display in the same way.
_SDR_TRANSFER = frozenset({1, 6, 13, 14, 15})
_SRGB_PRIMARIES, _RGB_MATRIX, _FULL_RANGE = 1, 0, 1
_SAMPLES = {_GRAY: 1, _RGB: 3, _PALETTE: 1, _GRAY_ALPHA: 2, 6: 4}
# Left, top, horizontal and vertical step of each pass of an interlaced image (section 8.1).
_ADAM7 = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
_INFLATED_BYTES = 1024 * 1024


def decode_png(data: bytes, limits: ImageLimits, warnings: list[ImageWarning]) -> Image.Image:
    """Decodes a PNG file to mode L or RGB.

    Raises:
        ImageRefused: It is animated, has transparent pixels, is not sRGB (gAMA, cICP), or exceeds a limit.
        Exception: It is corrupt; see `decode_raster`.
    """
    chunks = _chunks(data)
    width, height, depth, color = struct.unpack_from(">IIBB", chunks[b"IHDR"])
    check_size(width, height, len(data), limits)
    _check_rendering(chunks)
    with Image.open(BoundedFile(data), formats=("PNG",)) as image:
        if image.size != (width, height):
            raise ValueError("a later header has a different size")
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
    """Returns the chunks before the image data that affect how it is displayed.

    Raises:
        ImageRefused: There are too many chunks, or several of a type that may occur only once.
        ValueError, struct.error: There is no header, or there is no image data.
    """
    found: dict[bytes, bytes] = {}
    position = 8
    for _ in range(max_parts(data)):
        length, name = struct.unpack_from(">I4s", data, position)
        if name == b"IDAT":
            return found
        if name in _ONCE:
            if name in found:
                raise too_many("is a PNG with several chunks of a type that may occur only once")
            found[name] = data[position + 8 : position + 8 + length]
        position += 12 + length
    raise too_many("consists of too many small parts")


def _check_rows(data: bytes, header: bytes) -> None:
    """Refuses a file that does not contain all of its rows; Pillow would leave the missing ones black.

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
    """Yields the contents of the IDAT chunks."""
    position, name = 8, b""
    while name != b"IEND" and position + 8 <= len(data):
        length, name = struct.unpack_from(">I4s", data, position)
        if name == b"IDAT":
            yield data[position + 8 : position + 8 + length]
        position += 12 + length


def _check_rendering(chunks: dict[bytes, bytes]) -> None:
    """Refuses images whose samples a viewer would not display unchanged."""
    if b"acTL" in chunks:
        frames = int.from_bytes(chunks[b"acTL"][:4])
        raise ImageRefused(
            f"is an animated PNG ({frames} frames), expected one frame; send each frame as a separate image"
        )
    if b"cICP" in chunks:
        _check_code_points(chunks[b"cICP"])
    if b"gAMA" in chunks and not chunks.keys() & {b"sRGB", b"iCCP", b"cICP"}:
        gamma = int.from_bytes(chunks[b"gAMA"]) / 100_000
        if not 0.95 < gamma / _SRGB_GAMMA < 1.05:  # the threshold of libpng
            raise ImageRefused(f"is a PNG with a gamma of {gamma:g} (gAMA); expected {_SRGB_GAMMA:g}, that of sRGB")


def _check_code_points(content: bytes) -> None:
    """Refuses code points (cICP) of samples that are not displayed as sRGB.

    Raises:
        ImageRefused: They specify high dynamic range, an unusual transfer function, or other than full-range RGB.
        struct.error: There are not exactly four.
    """
    _, transfer, matrix, full_range = struct.unpack("4B", content)
    if transfer not in _SDR_TRANSFER:
        name = {8: ", linear", 16: ", PQ: high dynamic range", 18: ", HLG: high dynamic range"}.get(transfer, "")
        raise ImageRefused(f"is a PNG with transfer function {transfer} (cICP{name}); send it as sRGB")
    if matrix != _RGB_MATRIX:
        raise ImageRefused(f"is a PNG with matrix coefficients {matrix} (cICP); expected {_RGB_MATRIX} (RGB)")
    if full_range != _FULL_RANGE:
        raise ImageRefused("is a PNG with narrow-range samples (cICP); send it as sRGB, which is full-range")


def _primaries_warnings(code_points: bytes | None) -> list[ImageWarning]:
    """Returns a warning that color primaries are not applied, unless they are those of sRGB."""
    if not code_points or code_points[0] == _SRGB_PRIMARIES:
        return []
    message = f"has color primaries {code_points[0]} (cICP) other than those of sRGB, which are not applied"
    return [ImageWarning("PROFILE_IGNORED", message)]


def _opaque(image: Image.Image, color: int, depth: int, transparency: bytes | None) -> Image.Image:
    """Converts the image to mode L or RGB, without alpha channel or palette.

    Raises:
        ImageRefused: A pixel is transparent.
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
        # Pillow represents 16-bit gray with alpha as RGBA.
        return image.getchannel(0) if color == _GRAY_ALPHA else image.convert("RGB")
    if transparency is not None and _has_color(np.asarray(image), transparency, color, depth):
        raise transparent()
    if image.mode == "I;16":
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    return image.convert("L") if image.mode == "1" else image


def _peak(image: Image.Image) -> int:
    """Returns the maximum sample of an image of mode L, P or RGB."""
    return int(np.max(image.getextrema()))


def _has_color(pixels: NDArray[np.generic], transparency: bytes, color: int, depth: int) -> bool:
    """Returns whether a pixel has the color that tRNS makes transparent.

    Pillow keeps only the upper 8 bits of 16-bit RGB, so in these images pixels of nearly that color match too.
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
    """Warns if all 16-bit samples are below 2^12, or all samples below 2^sBIT, since samples are not rescaled."""
    if color == _PALETTE:
        return []
    limit = 2**12 if depth == 16 else 0
    if significant:
        bits = max(significant[: 1 if color in {_GRAY, _GRAY_ALPHA} else 3])
        if bits < depth:
            limit = max(limit, 2**bits)
    if not limit:
        return []
    # 16-bit samples were reduced to their upper 8 bits, and the limit is a multiple of 256. Samples of fewer than 8
    # bits were scaled to 8 bits.
    top = 2**depth - 1
    peak = _peak(image)
    below = peak < limit >> 8 if depth == 16 else peak * top // 255 < limit
    return [range_unused(limit, depth)] if below else []
