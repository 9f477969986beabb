"""Decodes TIFF files (TIFF 6.0) of the kinds that are known to be read correctly, and refuses the others by name.

What a file's tags say of its pixels is compared with a list of what is read. Compressed strips and tiles are
decompressed through Pillow by libtiff, as bytes; Pillow itself reads uncompressed ones, and takes no notice of their
byte counts. `tiff_samples` checks the counts, and turns the bytes into samples. Pillow's own interpretation of these
is wrong in several places, among them WhiteIsZero of 16 bits, 12 bits, separate planes of 16 bits, and signed samples.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from PIL import Image

from medserve_images.errors import ImageRefused
from medserve_images.raster.bounds import check_size
from medserve_images.raster.display import profile_warnings, transparent, upright
from medserve_images.raster.tiff_directory import Directory, Tag, read_directory
from medserve_images.raster.tiff_samples import Layout, read_samples
from medserve_images.target import ImageLimits
from medserve_images.warning import ImageWarning, depth_reduced, range_unused

Color = Literal["gray", "rgb", "palette", "cmyk"]


@dataclass(frozen=True, slots=True)
class _Photometric:
    """A PhotometricInterpretation that is read.

    Attributes:
        color: What it means.
        samples: For each pixel, without extra ones.
        bits: Of a sample.
    """

    color: Color
    samples: int
    bits: frozenset[int]


_WHITE_IS_ZERO, _YCBCR = 0, 6
_PHOTOMETRICS = {
    0: _Photometric("gray", 1, frozenset({1, 2, 4, 8, 10, 12, 14, 16})),
    1: _Photometric("gray", 1, frozenset({1, 2, 4, 8, 10, 12, 14, 16})),
    2: _Photometric("rgb", 3, frozenset({8, 10, 12, 14, 16})),
    3: _Photometric("palette", 1, frozenset({1, 2, 4, 8})),
    5: _Photometric("cmyk", 4, frozenset({8, 16})),
    _YCBCR: _Photometric("rgb", 3, frozenset({8})),
}
_REFUSED_PHOTOMETRICS = {
    4: "a transparency mask",
    8: "CIE L*a*b*",
    9: "ICC L*a*b*",
    10: "ITU L*a*b*",
    32803: "a color filter array",
    32844: "LogL",
    32845: "LogLuv",
    34892: "linear raw",
}
_SAMPLE_FORMATS = {2: "signed", 3: "floating-point", 5: "complex", 6: "complex"}
_NONE, _CCITT, _JPEG, _PACK_BITS = 1, frozenset({2, 3, 4}), 7, 32773
_LZW, _DEFLATE, _OLD_DEFLATE, _ZSTD = 5, 8, 32946, 50000
_WITH_PREDICTOR = frozenset({_LZW, _DEFLATE, _OLD_DEFLATE, _ZSTD})
# Not LZMA: liblzma reserves as much memory as the file says, up to 4 GiB for a few bytes.
_COMPRESSIONS = {_NONE, _JPEG, _PACK_BITS} | _CCITT | _WITH_PREDICTOR
_ITU_R_601 = (0.299, 0.587, 0.114)
_FULL_RANGE = (0, 255, 128, 255, 128, 255)


def decode_tiff(data: bytes, limits: ImageLimits, warnings: list[ImageWarning]) -> Image.Image:
    """Decodes a TIFF file of one page to mode L, RGB or CMYK.

    Raises:
        ImageRefused: It is of a kind that is not read, has transparent pixels, or exceeds a limit.
        Exception: It is broken; see `decode_raster`.
    """
    directory = read_directory(data)
    check_size(directory.one(Tag.WIDTH), directory.one(Tag.LENGTH), len(data), limits)
    if directory.pages > 1:
        raise ImageRefused(f"has {directory.pages} frames, expected one; send each frame as an image of its own")
    photometric = _photometric(directory)
    layout = _layout(directory, photometric)
    samples = read_samples(data, layout)
    colors, extra = samples[..., : photometric.samples], samples[..., photometric.samples :]
    if layout.bits > 8:
        warnings.append(depth_reduced(layout.bits))
    if layout.bits == 16 and colors.max() < 2 ** (12 - 8):
        warnings.append(range_unused(2**12, 16))
    warnings.extend(profile_warnings(directory.content.get(Tag.ICC_PROFILE)))
    _check_extra(directory, extra, 255 if layout.scaled else 2**layout.bits - 1)
    return upright(_image(colors, photometric.color, directory), directory.one(Tag.ORIENTATION, 1))


def _refuse(has: str, expected: str) -> ImageRefused:
    return ImageRefused(f"is a TIFF with {has}; expected {expected}")


def _photometric(directory: Directory) -> _Photometric:
    """What its PhotometricInterpretation means.

    Raises:
        ImageRefused: It has none, or one that is not read.
    """
    values = directory.integers(Tag.PHOTOMETRIC)
    if len(values) == 1 and values[0] in _PHOTOMETRICS:
        return _PHOTOMETRICS[values[0]]
    name = f" ({_REFUSED_PHOTOMETRICS[values[0]]})" if values and values[0] in _REFUSED_PHOTOMETRICS else ""
    has = f"PhotometricInterpretation {values[0]}{name}" if values else "no PhotometricInterpretation"
    raise _refuse(has, "grayscale, palette, RGB, CMYK, or YCbCr in JPEG")


def _layout(directory: Directory, photometric: _Photometric) -> Layout:
    """How the samples lie in the file.

    Raises:
        ImageRefused: They lie in a way that is not read.
        ValueError: Tags are missing or contradict each other.
    """
    count = directory.one(Tag.SAMPLES_PER_PIXEL, 1)
    if count not in {photometric.samples, photometric.samples + 1}:
        raise _refuse(f"{count} samples per pixel", f"{photometric.samples}, and at most one more")
    bits = _bits(directory, count, photometric)
    compression, predictor = _compression(directory, photometric, bits, count)
    fill_order, planar = directory.one(Tag.FILL_ORDER, 1), directory.one(Tag.PLANAR_CONFIGURATION, 1)
    if fill_order not in ({1} if compression == _JPEG else {1, 2}):
        raise _refuse(f"FillOrder {fill_order}", "1, or 2 without JPEG compression")
    separate = planar != 1 and count > 1
    if separate and (planar != 2 or compression == _JPEG):
        raise _refuse(f"PlanarConfiguration {planar}", "1, or 2 without JPEG compression")
    if photometric.color == "cmyk" and directory.one(Tag.INK_SET, 1) != 1:
        raise _refuse("inks other than CMYK (InkSet)", "cyan, magenta, yellow and black")
    width, height = directory.one(Tag.WIDTH), directory.one(Tag.LENGTH)
    tiled = Tag.TILE_WIDTH in directory.numbers
    if tiled:
        size = directory.one(Tag.TILE_WIDTH), directory.one(Tag.TILE_LENGTH)
        places = Tag.TILE_OFFSETS, Tag.TILE_BYTE_COUNTS
    else:
        size = width, min(height, directory.one(Tag.ROWS_PER_STRIP, 2**32 - 1))
        places = Tag.STRIP_OFFSETS, Tag.STRIP_BYTE_COUNTS
    return Layout(
        width=width,
        height=height,
        samples=count,
        bits=bits,
        scaled=photometric.color != "palette",
        big_endian=directory.byte_order == ">",
        separate=separate,
        compression=compression,
        predictor=predictor,
        tiled=tiled,
        part_width=size[0],
        part_height=size[1],
        offsets=directory.integers(places[0]),
        byte_counts=directory.integers(places[1]),
        decoder_tags=_decoder_tags(directory, compression, fill_order),
    )


def _bits(directory: Directory, count: int, photometric: _Photometric) -> int:
    """Bits of each sample, which are unsigned integers.

    Raises:
        ImageRefused: They are of another kind, of other bits than are read, or of different ones.
    """
    every = set(directory.integers(Tag.BITS_PER_SAMPLE, (1,)))
    bits = max(every, default=0)
    for number in directory.integers(Tag.SAMPLE_FORMAT, (1,)):
        if number != 1:
            kind = _SAMPLE_FORMATS.get(number, "undefined")
            raise _refuse(f"{bits}-bit {kind} samples (SampleFormat {number})", "unsigned integers")
    if len(every) != 1 or len(directory.integers(Tag.BITS_PER_SAMPLE, (1,))) not in {1, count}:
        raise _refuse("samples of different bits", "the same number of bits for each sample")
    if bits not in photometric.bits:
        raise _refuse(f"{bits} bits per sample ({photometric.color})", f"{_listed(photometric.bits)}")
    return bits


def _listed(numbers: frozenset[int]) -> str:
    *first, last = map(str, sorted(numbers))
    return f"{', '.join(first)} or {last}" if first else last


def _compression(directory: Directory, photometric: _Photometric, bits: int, count: int) -> tuple[int, int]:
    """Compression and predictor.

    Raises:
        ImageRefused: They are not read, or not with samples of this kind.
    """
    compression, predictor = directory.one(Tag.COMPRESSION, 1), directory.one(Tag.PREDICTOR, 1)
    if compression not in _COMPRESSIONS:
        raise _refuse(f"compression {compression}", "none, CCITT, LZW, Deflate, Zstandard, PackBits or JPEG (7)")
    if compression in _CCITT and (bits, count, photometric.color) != (1, 1, "gray"):
        raise _refuse("CCITT compression of other than bilevel samples", "one bit per pixel")
    is_ycbcr = directory.one(Tag.PHOTOMETRIC) == _YCBCR
    if compression == _JPEG:
        if bits != 8 or count != photometric.samples or photometric.color not in {"gray", "rgb"}:
            raise _refuse("JPEG compression of other than gray, RGB or YCbCr samples of 8 bits", "these")
        if is_ycbcr:
            _check_ycbcr(directory)
    elif is_ycbcr:
        raise _refuse("YCbCr samples that are not compressed as JPEG", "RGB")
    if predictor != 1 and not (predictor == 2 and bits in {8, 16} and compression in _WITH_PREDICTOR):
        raise _refuse(f"predictor {predictor}, compression {compression} and {bits} bits", "no predictor")
    return compression, predictor


def _check_ycbcr(directory: Directory) -> None:
    """Refuses YCbCr other than that of JFIF, which libjpeg assumes."""
    coefficients = directory.numbers.get(Tag.YCBCR_COEFFICIENTS, _ITU_R_601)
    reference = directory.numbers.get(Tag.REFERENCE_BLACK_WHITE, _FULL_RANGE)
    if not (np.allclose(coefficients, _ITU_R_601, atol=1e-3) and np.allclose(reference, _FULL_RANGE, atol=1)):
        raise _refuse("unusual YCbCrCoefficients or ReferenceBlackWhite", "those of JFIF")


def _decoder_tags(directory: Directory, compression: int, fill_order: int) -> dict[Tag, int | tuple[int, ...] | bytes]:
    """The tags that a decompressor needs beyond the layout."""
    tags: dict[Tag, int | tuple[int, ...] | bytes] = {Tag.FILL_ORDER: fill_order}
    if compression in _CCITT:
        tags |= {tag: directory.one(tag) for tag in (Tag.T4_OPTIONS, Tag.T6_OPTIONS) if tag in directory.numbers}
    if compression == _JPEG:
        tags[Tag.PHOTOMETRIC] = directory.one(Tag.PHOTOMETRIC) or 1  # WhiteIsZero is applied later
        if Tag.JPEG_TABLES in directory.content:
            tags[Tag.JPEG_TABLES] = directory.content[Tag.JPEG_TABLES]
        if Tag.YCBCR_SUBSAMPLING in directory.numbers:
            tags[Tag.YCBCR_SUBSAMPLING] = directory.integers(Tag.YCBCR_SUBSAMPLING)
    return tags


def _check_extra(directory: Directory, extra: np.ndarray[tuple[int, ...], np.dtype[np.uint8]], opaque: int) -> None:
    """Refuses an extra sample that says something of a pixel: an alpha that is not opaque, any other that varies.

    Args:
        directory: The tags.
        extra: uint8 [height, width, extra samples].
        opaque: The alpha of an opaque pixel.
    """
    if not extra.size:
        return
    kinds = directory.integers(Tag.EXTRA_SAMPLES, (0,))
    low, high = int(extra.min()), int(extra.max())
    if kinds == (0,):  # unspecified
        if low != high:
            raise _refuse("an extra sample of unspecified meaning (ExtraSamples)", "only samples of color")
    elif low != opaque:
        raise transparent()


def _image(samples: np.ndarray[tuple[int, ...], np.dtype[np.uint8]], color: Color, directory: Directory) -> Image.Image:
    """An image of samples of 8 bits, [height, width, samples]."""
    height, width = samples.shape[:2]
    if color == "cmyk":
        return Image.frombuffer("CMYK", (width, height), np.ascontiguousarray(samples), "raw", "CMYK", 0, 1)
    if color == "rgb":
        return Image.fromarray(np.ascontiguousarray(samples))
    if color == "palette":
        return Image.fromarray(_color_map(directory)[samples[..., 0]])
    gray = np.ascontiguousarray(samples[..., 0])
    return Image.fromarray(255 - gray if directory.one(Tag.PHOTOMETRIC) == _WHITE_IS_ZERO else gray)


def _color_map(directory: Directory) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    """The colors of a palette, [2 ** bits, 3]."""
    entries = np.array(directory.integers(Tag.COLOR_MAP))
    if len(entries) != 3 << max(directory.integers(Tag.BITS_PER_SAMPLE, (1,))):
        raise ValueError("the palette has not one color for each value")
    if entries.max() < 256:
        raise _refuse("a ColorMap below 256, which may be of 8 bits", "one of 16 bits")
    return (entries.reshape(3, -1).T >> 8).astype(np.uint8)
