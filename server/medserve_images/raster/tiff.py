"""Decodes TIFF files (TIFF 6.0) of the supported kinds, and refuses all others with an error that names the kind.

The tags that describe a file's pixels are checked against the supported values. Compressed strips and tiles are
decompressed to bytes by libtiff, through Pillow; Pillow itself reads uncompressed ones and ignores their byte counts.
`tiff_samples` checks the counts and converts the bytes to samples. Pillow's own conversion to samples is wrong in
several cases, among them 16-bit WhiteIsZero, 12 bits, separate planes of 16 bits, and signed samples.
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
    """A supported PhotometricInterpretation.

    Attributes:
        color: Its color space.
        samples: Samples per pixel, without extra samples.
        bits: Supported numbers of bits per sample.
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
# LZMA is not supported: liblzma allocates as much memory as the file states, up to 4 GiB for a few bytes.
_COMPRESSIONS = {_NONE, _JPEG, _PACK_BITS} | _CCITT | _WITH_PREDICTOR
_ITU_R_601 = (0.299, 0.587, 0.114)
_FULL_RANGE = (0, 255, 128, 255, 128, 255)


def decode_tiff(data: bytes, limits: ImageLimits, warnings: list[ImageWarning]) -> Image.Image:
    """Decodes a TIFF file with one page to mode L, RGB or CMYK.

    Raises:
        ImageRefused: It is of an unsupported kind, has transparent pixels, or exceeds a limit.
        Exception: It is corrupt; see `decode_raster`.
    """
    directory = read_directory(data)
    check_size(directory.one(Tag.WIDTH), directory.one(Tag.LENGTH), len(data), limits)
    if directory.pages > 1:
        raise ImageRefused(f"has {directory.pages} frames, expected one frame; send each frame as a separate image")
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
    """Returns the color space and sample format of its PhotometricInterpretation.

    Raises:
        ImageRefused: It is missing or unsupported.
    """
    values = directory.integers(Tag.PHOTOMETRIC)
    if len(values) == 1 and values[0] in _PHOTOMETRICS:
        return _PHOTOMETRICS[values[0]]
    name = f" ({_REFUSED_PHOTOMETRICS[values[0]]})" if values and values[0] in _REFUSED_PHOTOMETRICS else ""
    has = f"PhotometricInterpretation {values[0]}{name}" if values else "no PhotometricInterpretation"
    raise _refuse(has, "grayscale, palette, RGB, CMYK, or YCbCr in JPEG")


def _layout(directory: Directory, photometric: _Photometric) -> Layout:
    """Returns how the samples are stored in the file.

    Raises:
        ImageRefused: The storage layout is not supported.
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
    """Returns the bits per sample.

    Raises:
        ImageRefused: The samples are not unsigned integers, or their number of bits is unsupported or not uniform.
    """
    every = set(directory.integers(Tag.BITS_PER_SAMPLE, (1,)))
    bits = max(every, default=0)
    for number in directory.integers(Tag.SAMPLE_FORMAT, (1,)):
        if number != 1:
            kind = _SAMPLE_FORMATS.get(number, "undefined")
            raise _refuse(f"{bits}-bit {kind} samples (SampleFormat {number})", "unsigned integers")
    if len(every) != 1 or len(directory.integers(Tag.BITS_PER_SAMPLE, (1,))) not in {1, count}:
        raise _refuse("samples of different bit depths", "the same number of bits for each sample")
    if bits not in photometric.bits:
        raise _refuse(f"{bits} bits per sample ({photometric.color})", f"{_listed(photometric.bits)}")
    return bits


def _listed(numbers: frozenset[int]) -> str:
    *first, last = map(str, sorted(numbers))
    return f"{', '.join(first)} or {last}" if first else last


def _compression(directory: Directory, photometric: _Photometric, bits: int, count: int) -> tuple[int, int]:
    """Returns compression and predictor.

    Raises:
        ImageRefused: They are not supported, or not for these samples.
    """
    compression, predictor = directory.one(Tag.COMPRESSION, 1), directory.one(Tag.PREDICTOR, 1)
    if compression not in _COMPRESSIONS:
        raise _refuse(f"compression {compression}", "none, CCITT, LZW, Deflate, Zstandard, PackBits or JPEG (7)")
    if compression in _CCITT and (bits, count, photometric.color) != (1, 1, "gray"):
        raise _refuse("CCITT compression of other than bilevel samples", "one bit per pixel")
    is_ycbcr = directory.one(Tag.PHOTOMETRIC) == _YCBCR
    if compression == _JPEG:
        if bits != 8 or count != photometric.samples or photometric.color not in {"gray", "rgb"}:
            raise _refuse("JPEG compression of other than 8-bit gray, RGB or YCbCr samples", "one of these")
        if is_ycbcr:
            _check_ycbcr(directory)
    elif is_ycbcr:
        raise _refuse("YCbCr samples that are not compressed as JPEG", "RGB")
    if predictor != 1 and not (predictor == 2 and bits in {8, 16} and compression in _WITH_PREDICTOR):
        raise _refuse(f"predictor {predictor}, compression {compression} and {bits} bits", "no predictor")
    return compression, predictor


def _check_ycbcr(directory: Directory) -> None:
    """Refuses YCbCr variants other than that of JFIF, which libjpeg assumes."""
    coefficients = directory.numbers.get(Tag.YCBCR_COEFFICIENTS, _ITU_R_601)
    reference = directory.numbers.get(Tag.REFERENCE_BLACK_WHITE, _FULL_RANGE)
    if not (np.allclose(coefficients, _ITU_R_601, atol=1e-3) and np.allclose(reference, _FULL_RANGE, atol=1)):
        raise _refuse("unusual YCbCrCoefficients or ReferenceBlackWhite", "those of JFIF")


def _decoder_tags(directory: Directory, compression: int, fill_order: int) -> dict[Tag, int | tuple[int, ...] | bytes]:
    """Returns the tags that a decompressor needs in addition to the layout."""
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
    """Refuses an extra sample that carries information: alpha that is not opaque, or any other that is not constant.

    Args:
        directory: The tags.
        extra: uint8 [height, width, extra samples].
        opaque: Alpha value of an opaque pixel.
    """
    if not extra.size:
        return
    kinds = directory.integers(Tag.EXTRA_SAMPLES, (0,))
    low, high = int(extra.min()), int(extra.max())
    if kinds == (0,):  # unspecified
        if low != high:
            raise _refuse("an extra sample of unspecified meaning (ExtraSamples)", "color samples only")
    elif low != opaque:
        raise transparent()


def _image(samples: np.ndarray[tuple[int, ...], np.dtype[np.uint8]], color: Color, directory: Directory) -> Image.Image:
    """Creates an image from 8-bit samples, [height, width, samples]."""
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
    """Returns the colors of the palette, [2 ** bits, 3]."""
    entries = np.array(directory.integers(Tag.COLOR_MAP))
    if len(entries) != 3 << max(directory.integers(Tag.BITS_PER_SAMPLE, (1,))):
        raise ValueError("the palette does not have one color for each value")
    if entries.max() < 256:
        raise _refuse("a ColorMap with all values below 256, which may be 8-bit", "a 16-bit ColorMap")
    return (entries.reshape(3, -1).T >> 8).astype(np.uint8)
