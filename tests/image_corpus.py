"""A corpus of image files: formats, depths, colors, orientations, layouts, compressions and DICOM variants.

Each file holds noise of its own, and is either read to within 1 of it or refused for a known reason.
"""

import io
import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydicom import uid

from dicom_files import dicom
from image_files import DEFLATE, LZW, NONE, PACK_BITS, png, tiff

HEIGHT, WIDTH = 21, 18
Pixels = NDArray[np.uint8]
TRANSPARENT = "transparent pixels"
_COMPRESSIONS = {"none": NONE, "deflate": DEFLATE, "lzw": LZW, "pack-bits": PACK_BITS}
_LAYOUTS: dict[str, dict[str, Any]] = {"one-strip": {}, "strips": {"rows": 5}, "tiles": {"tile": (16, 16)}}
_ORDERS: tuple[Literal["<", ">"], ...] = ("<", ">")
_METHODS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}


@dataclass(frozen=True)
class Case:
    """A file, and what becomes of it.

    Attributes:
        name: What it is.
        data: Its bytes.
        pixels: What a viewer shows, uint8 [height, width] or [height, width, 3]; None: it is refused.
        reason: Part of the reason for refusing it.
        kinds: Of the warnings, but for sizes and colors.
        tolerance: Beyond 1, for lossy compression.
    """

    name: str
    data: bytes
    pixels: Pixels | None = None
    reason: str = ""
    kinds: tuple[str, ...] = ()
    tolerance: int = 1


class _Noise:
    """Pictures of noise, each another."""

    def __init__(self) -> None:
        self._generator = np.random.default_rng(0)

    def gray(self) -> Pixels:
        return self._generator.integers(0, 256, (HEIGHT, WIDTH), np.uint8)

    def rgb(self) -> Pixels:
        return self._generator.integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)

    def smooth(self, channels: int) -> Pixels:
        """For lossy compression; shapes [height, width] and [height, width, channels]."""
        steps = self._generator.integers(1, 4, (2, channels))
        rows, columns = np.arange(HEIGHT)[:, None, None], np.arange(WIDTH)[:, None]
        start = self._generator.integers(0, 120, channels)
        picture: Pixels = (start + rows * steps[0] + columns * steps[1]).astype(np.uint8)
        return picture[..., 0] if channels == 1 else picture


def spread(pixels: Pixels, bits: int) -> NDArray[np.int64]:
    """8 bits in so many others."""
    samples: NDArray[np.int64] = np.round(pixels * ((2**bits - 1) / 255)).astype(np.int64)
    return samples


def shown(samples: NDArray[Any], bits: int) -> Pixels:
    """So many bits in 8."""
    pixels: Pixels = np.round(samples * (255 / (2**bits - 1))).astype(np.uint8)
    return pixels


def _depth(bits: int) -> tuple[str, ...]:
    return ("DEPTH_REDUCED",) if bits > 8 else ()


def corpus() -> list[Case]:
    """All files."""
    noise = _Noise()
    makers = (
        _gray_tiffs,
        _color_tiffs,
        _other_tiffs,
        _refused_tiffs,
        _pngs,
        _transparent_pngs,
        _jpegs,
        _turned,
        _dicoms,
    )
    return [case for make in makers for case in make(noise)]


def _gray_tiffs(noise: _Noise) -> Iterator[Case]:
    for bits, white, order, compression, layout in itertools.product(
        (1, 2, 4, 8, 10, 12, 14, 16), (False, True), _ORDERS, _COMPRESSIONS, _LAYOUTS
    ):
        values = spread(noise.gray(), bits)
        stored = 2**bits - 1 - values if white else values
        options = {"order": order, "compression": _COMPRESSIONS[compression], **_LAYOUTS[layout]}
        name = f"tiff-{'white' if white else 'black'}-is-zero-{bits}-{order}-{compression}-{layout}"
        data = tiff(stored[..., None], bits, 0 if white else 1, **options)
        yield Case(name, data, shown(values, bits), kinds=_depth(bits))
    for bits in (1, 8, 16):
        values = spread(noise.gray(), bits)
        data = tiff(values[..., None], bits, 1, fill_order=2)
        yield Case(f"tiff-{bits}-fill-order-2", data, shown(values, bits), kinds=_depth(bits))


def _color_tiffs(noise: _Noise) -> Iterator[Case]:
    for bits, order, compression, layout, separate in itertools.product(
        (8, 10, 12, 14, 16), _ORDERS, _COMPRESSIONS, _LAYOUTS, (False, True)
    ):
        values = spread(noise.rgb(), bits)
        options = {"order": order, "compression": _COMPRESSIONS[compression], "separate": separate, **_LAYOUTS[layout]}
        name = f"tiff-rgb-{bits}-{order}-{compression}-{layout}-{'separate' if separate else 'together'}"
        yield Case(name, tiff(values, bits, 2, **options), shown(values, bits), kinds=_depth(bits))
    for bits, separate in itertools.product((8, 16), (False, True)):
        pixels = noise.rgb()
        inks = spread(np.dstack([pixels, noise.gray()]), bits)
        ratio = inks / (2**bits - 1)
        rgb = np.round(255 * (1 - ratio[..., :3]) * (1 - ratio[..., 3:])).astype(np.uint8)
        yield Case(f"tiff-cmyk-{bits}-{separate}", tiff(inks, bits, 5, separate=separate), rgb, kinds=_depth(bits))
        for kind, alpha in (("associated", 1), ("unassociated", 2)):
            pixels = noise.rgb()
            opaque = np.dstack([spread(pixels, bits), np.full((HEIGHT, WIDTH), 2**bits - 1)])
            tags = {338: (3, [alpha])}
            name = f"tiff-rgb-{bits}-opaque-{kind}-{separate}"
            yield Case(name, tiff(opaque, bits, 2, separate=separate, tags=tags), pixels, kinds=_depth(bits))
            seen_through = opaque.copy()
            seen_through[3, 4, 3] //= 2
            name = f"tiff-rgb-{bits}-transparent-{kind}-{separate}"
            yield Case(name, tiff(seen_through, bits, 2, separate=separate, tags=tags), reason=TRANSPARENT)


def _other_tiffs(noise: _Noise) -> Iterator[Case]:
    for bits, compression, layout, order in itertools.product((8, 16), (DEFLATE, LZW), _LAYOUTS, _ORDERS):
        options = {"order": order, "compression": compression, "predictor": 2, **_LAYOUTS[layout]}
        gray, rgb = noise.gray(), noise.rgb()
        name = f"{bits}-{order}-{compression}-{layout}"
        data = tiff(spread(gray, bits)[..., None], bits, 1, **options)
        yield Case(f"tiff-predictor-{name}", data, gray, kinds=_depth(bits))
        yield Case(f"tiff-rgb-predictor-{name}", tiff(spread(rgb, bits), bits, 2, **options), rgb, kinds=_depth(bits))
    for order, bits in itertools.product(_ORDERS, (8, 12, 16)):
        gray = noise.gray()
        data = tiff(spread(gray, bits)[..., None], bits, 1, order=order, big=True, rows=4)
        yield Case(f"tiff-big-{bits}-{order}", data, gray, kinds=_depth(bits))
    for bits in (1, 2, 4, 8):
        index = noise.gray() >> (8 - bits)
        colors = np.random.default_rng(bits).integers(0, 256, (2**bits, 3), np.uint8)
        colors[-1] = 255
        tags = {320: (3, (colors.T.astype(int) * 257).ravel().tolist())}
        yield Case(f"tiff-palette-{bits}", tiff(index[..., None].astype(int), bits, 3, tags=tags), colors[index])
        index = noise.gray() >> (8 - bits)
        for alpha, pixels in ((2**bits - 1, colors[index]), (2**bits // 2 - 1, None)):
            stored = np.dstack([index, np.full_like(index, alpha)]).astype(int)
            data = tiff(stored, bits, 3, tags={**tags, 338: (3, [2])})
            yield Case(f"tiff-palette-{bits}-alpha-{alpha}", data, pixels, TRANSPARENT if pixels is None else "")
        tags = {320: (3, colors.T.astype(int).ravel().tolist())}
        yield Case(f"tiff-palette-{bits}-of-8-bits", tiff(index[..., None], bits, 3, tags=tags), reason="ColorMap")
    low = noise.gray().astype(int) * 16
    data = tiff(low[..., None], 16, 1)
    yield Case("tiff-12-bits-in-16", data, (low >> 8).astype(np.uint8), kinds=("DEPTH_REDUCED", "RANGE_UNUSED"))
    low = noise.rgb().astype(int) * 16
    data = tiff(low, 16, 2, separate=True)
    yield Case("tiff-rgb-12-bits-in-16", data, (low >> 8).astype(np.uint8), kinds=("DEPTH_REDUCED", "RANGE_UNUSED"))
    low = noise.rgb().astype(int) * 16
    data = tiff(np.dstack([low, np.full((HEIGHT, WIDTH), 65535)]), 16, 2, tags={338: (3, [2])})
    pixels = (low >> 8).astype(np.uint8)
    yield Case("tiff-rgb-12-bits-in-16-opaque", data, pixels, kinds=("DEPTH_REDUCED", "RANGE_UNUSED"))
    for compression in ("group3", "group4", "tiff_ccitt"):
        bilevel = noise.gray() > 127
        pixels = (bilevel * 255).astype(np.uint8)
        yield Case(f"tiff-{compression}", _saved(Image.fromarray(bilevel), "TIFF", compression=compression), pixels)
    for channels, quality in ((1, 95), (3, 95)):
        smooth = noise.smooth(channels)
        data = _saved(Image.fromarray(smooth), "TIFF", compression="jpeg", quality=quality)
        yield Case(f"tiff-jpeg-{channels}", data, smooth, tolerance=12)


def _refused_tiffs(noise: _Noise) -> Iterator[Case]:
    gray, rgb = noise.gray()[..., None].astype(int), noise.rgb().astype(int)
    with_alpha = np.dstack([gray, gray])

    def refused(name: str, data: bytes, reason: str) -> Case:
        return Case(f"tiff-{name}", data, reason=reason)

    yield refused("signed-8", tiff(gray, 8, 1, tags={339: (3, [2])}), "8-bit signed samples")
    yield refused("signed-16", tiff(gray, 16, 1, tags={339: (3, [2])}), "16-bit signed samples")
    yield refused("float-32", tiff(gray, 32, 1, tags={339: (3, [3])}), "32-bit floating-point samples")
    yield refused("float-16", tiff(gray, 16, 1, tags={339: (3, [3])}), "16-bit floating-point samples")
    yield refused("32", tiff(gray, 32, 1), "32 bits per sample")
    for bits in (3, 5, 7, 9, 11, 13):
        yield refused(f"{bits}", tiff(gray & 7, bits, 1), f"{bits} bits per sample")
    for number in (4, 6, 8, 9, 10, 32803, 32844, 32845, 34892):
        name = "YCbCr" if number == 6 else f"PhotometricInterpretation {number}"
        yield refused(f"photometric-{number}", tiff(rgb, 8, number), name)
    yield refused("no-photometric", tiff(gray, 8, 1, tags={262: (3, [])}), "no PhotometricInterpretation")
    yield refused("bits-differ", tiff(rgb, 8, 2, tags={258: (3, [8, 8, 16])}), "samples of different bits")
    yield refused("pages", tiff(gray, 8, 1, pages=3), "has 3 frames, expected one")
    yield refused("gray-associated", tiff(with_alpha, 8, 1, tags={338: (3, [1])}), TRANSPARENT)
    yield refused("gray-unassociated", tiff(with_alpha, 16, 1, tags={338: (3, [2])}), TRANSPARENT)
    yield refused("gray-unspecified", tiff(with_alpha, 8, 1, tags={338: (3, [0])}), "unspecified meaning")
    yield refused("gray-undeclared", tiff(with_alpha, 8, 1), "unspecified meaning")
    yield refused("five-samples", tiff(np.dstack([rgb, with_alpha]), 8, 2), "5 samples per pixel")
    yield refused("inks", tiff(np.dstack([rgb, gray]), 8, 5, tags={332: (3, [2])}), "InkSet")
    yield refused("predictor-3", tiff(gray, 16, 1, compression=DEFLATE, tags={317: (3, [3])}), "predictor 3")
    yield refused("predictor-12", tiff(gray, 12, 1, compression=DEFLATE, tags={317: (3, [2])}), "predictor 2")
    for number in (6, 34712, 34925, 50001, 34887, 9):
        parts = [b"\0" * 500]
        yield refused(
            f"compression-{number}", tiff(gray, 8, 1, compression=number, parts=parts), f"compression {number}"
        )
    yield refused("overlap", tiff(gray, 8, 1, rows=5, tags={273: (4, [8] * 5), 279: (4, [900] * 5)}), "is broken")
    yield refused("beyond", tiff(gray, 8, 1, tags={273: (4, [10**9])}), "is broken")
    yield refused("too-few", tiff(gray, 8, 1, rows=5, tags={279: (4, [1])}), "is broken")
    yield refused("short", tiff(gray, 8, 1, parts=[bytes(100)]), "is broken")
    yield refused(
        "huge-tile", tiff(gray, 8, 1, tile=(16, 16), tags={322: (4, [60_000]), 323: (4, [60_000])}), "too large"
    )


def _pngs(noise: _Noise) -> Iterator[Case]:
    for depth, interlaced in itertools.product((1, 2, 4, 8, 16), (False, True)):
        gray = spread(noise.gray(), depth)
        name = f"{depth}-{'interlaced' if interlaced else 'plain'}"
        data = png(gray[..., None], depth, 0, interlaced=interlaced)
        yield Case(f"png-gray-{name}", data, shown(gray, depth), kinds=_depth(depth))
        if depth <= 8:
            colors = np.random.default_rng(depth).integers(0, 256, (2**depth, 3), np.uint8)
            palette = (b"PLTE", colors.tobytes())
            yield Case(
                f"png-palette-{name}", png(gray[..., None], depth, 3, palette, interlaced=interlaced), colors[gray]
            )
            short = (b"PLTE", colors[:-1].tobytes())
            data = png(np.full_like(gray, 2**depth - 1)[..., None], depth, 3, short, interlaced=interlaced)
            yield Case(f"png-palette-too-short-{name}", data, reason="beyond the end of its palette")
        if depth >= 8:
            pixels = noise.rgb()
            rgb = spread(pixels, depth)
            kinds = _depth(depth)
            yield Case(f"png-rgb-{name}", png(rgb, depth, 2, interlaced=interlaced), pixels, kinds=kinds)
            alpha = np.full((HEIGHT, WIDTH), 2**depth - 1)
            pixels, gray = noise.rgb(), spread(noise.gray(), depth)
            rgb = spread(pixels, depth)
            opaque = png(np.dstack([rgb, alpha]), depth, 6, interlaced=interlaced)
            yield Case(f"png-rgba-opaque-{name}", opaque, pixels, kinds=kinds)
            opaque = png(np.dstack([gray, alpha]), depth, 4, interlaced=interlaced)
            yield Case(f"png-gray-alpha-opaque-{name}", opaque, shown(gray, depth), kinds=kinds)
    low = noise.gray().astype(int)[..., None]
    both = ("DEPTH_REDUCED", "RANGE_UNUSED")
    yield Case("png-12-bits-in-16", png(low * 16, 16, 0), (low[..., 0] >> 4).astype(np.uint8), kinds=both)
    low_rgb = noise.rgb().astype(int) * 16
    yield Case("png-rgb-12-bits-in-16", png(low_rgb, 16, 2), (low_rgb >> 8).astype(np.uint8), kinds=both)
    data = png(low * 32, 16, 0, (b"sBIT", bytes([13])))
    yield Case("png-13-significant-bits", data, (low[..., 0] >> 3).astype(np.uint8), kinds=both)
    pixels = noise.gray()
    data = png(spread(pixels, 16)[..., None], 16, 0, (b"sBIT", bytes([12])))
    yield Case("png-12-significant-bits-scaled", data, pixels, kinds=("DEPTH_REDUCED",))
    pixels = noise.gray() // np.uint8(8)
    yield Case(
        "png-5-significant-bits", png(pixels[..., None], 8, 0, (b"sBIT", bytes([5]))), pixels, kinds=("RANGE_UNUSED",)
    )
    for gamma, more in ((100_000, ()), (55_556, ()), (45_455, ()), (100_000, ((b"sRGB", b"\0"),))):
        pixels = noise.gray()
        data = png(pixels[..., None], 8, 0, *more, (b"gAMA", gamma.to_bytes(4)))
        name = f"png-gamma-{gamma}{'-srgb' if more else ''}"
        yield Case(name, data, pixels) if more or gamma == 45_455 else Case(name, data, reason="gamma")
    yield Case("png-hdr", png(noise.rgb(), 8, 2, (b"cICP", bytes([9, 16, 0, 1]))), reason="high dynamic range")
    frames = [Image.fromarray(noise.gray()) for _ in range(2)]
    yield Case(
        "apng", _saved(frames[0], "PNG", save_all=True, append_images=frames[1:]), reason="animated PNG (2 frames)"
    )


def _transparent_pngs(noise: _Noise) -> Iterator[Case]:
    for depth, interlaced in itertools.product((1, 2, 4, 8, 16), (False, True)):
        gray = spread(noise.gray(), depth)
        top = 2**depth - 1
        name = f"{depth}-{'interlaced' if interlaced else 'plain'}"
        gray[gray == 1] = 0
        for value, pixels in ((int(gray[5, 5]), None), (1, shown(gray, depth))):
            if value == 1 and depth == 1:
                continue
            data = png(gray[..., None], depth, 0, (b"tRNS", value.to_bytes(2)), interlaced=interlaced)
            kinds = () if pixels is None else _depth(depth)
            reason = TRANSPARENT if pixels is None else ""
            yield Case(f"png-gray-trns-{name}-{pixels is None}", data, pixels, reason, kinds)
        if depth <= 8:
            palette = (b"PLTE", np.arange(3 * 2**depth, dtype=np.uint8).tobytes())
            trns = (b"tRNS", bytes([255] * int(gray.max()) + [254]))
            data = png(gray[..., None], depth, 3, palette, trns, interlaced=interlaced)
            yield Case(f"png-palette-trns-{name}", data, reason=TRANSPARENT)
        if depth >= 8:
            rgb = spread(noise.rgb(), depth)
            color = b"".join(int(sample).to_bytes(2) for sample in rgb[2, 3])
            data = png(rgb, depth, 2, (b"tRNS", color), interlaced=interlaced)
            yield Case(f"png-rgb-trns-{name}", data, reason=TRANSPARENT)
            alpha = np.full((HEIGHT, WIDTH), top)
            alpha[3, 4] = top // 2
            yield Case(
                f"png-rgba-{name}", png(np.dstack([rgb, alpha]), depth, 6, interlaced=interlaced), reason=TRANSPARENT
            )
            data = png(np.dstack([gray, alpha]), depth, 4, interlaced=interlaced)
            yield Case(f"png-gray-alpha-{name}", data, reason=TRANSPARENT)


def _saved(image: Image.Image, kind: str, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def _jpegs(noise: _Noise) -> Iterator[Case]:
    for channels, progressive in itertools.product((1, 3), (False, True)):
        smooth = noise.smooth(channels)
        data = _saved(Image.fromarray(smooth), "JPEG", quality=98, progressive=progressive)
        yield Case(f"jpeg-{channels}-{progressive}", data, smooth, tolerance=10)
    smooth = noise.smooth(3)
    data = _saved(Image.fromarray(smooth), "JPEG", quality=98, keep_rgb=True)
    yield Case("jpeg-rgb", data, smooth, tolerance=10)
    inks = noise.smooth(4)
    data = _saved(Image.frombytes("CMYK", (WIDTH, HEIGHT), inks.tobytes()), "JPEG", quality=98)
    rgb = np.round((255.0 - inks[..., :3]) * (255.0 - inks[..., 3:]) / 255).astype(np.uint8)
    yield Case("jpeg-cmyk", data, rgb, tolerance=16)
    adobe = data.index(b"Adobe") - 4
    length = int.from_bytes(data[adobe + 2 : adobe + 4])
    yield Case("jpeg-cmyk-not-adobe", data[:adobe] + data[adobe + 2 + length :], reason="without Adobe marker")
    gray = _saved(Image.fromarray(noise.smooth(1)), "JPEG")
    frame = gray.index(b"\xff\xc0")
    yield Case("jpeg-12", gray[: frame + 4] + bytes([12]) + gray[frame + 5 :], reason="1 x 12 bits per pixel")
    pictures = [noise.smooth(3) for _ in range(2)]
    data = _saved(
        Image.fromarray(pictures[0]), "MPO", save_all=True, append_images=[Image.fromarray(pictures[1])], quality=98
    )
    yield Case("jpeg-multi-picture", data, pictures[0], kinds=("FIRST_OF_SEVERAL",), tolerance=10)
    smooth = noise.smooth(3)
    data = _saved(Image.fromarray(smooth), "JPEG", quality=98, icc_profile=b"a profile of a wide gamut")
    yield Case("jpeg-profile", data, smooth, kinds=("PROFILE_IGNORED",), tolerance=10)
    smooth = noise.smooth(3)
    srgb = _saved(Image.fromarray(smooth), "JPEG", quality=98, icc_profile=b"desc sRGB IEC61966-2.1")
    yield Case("jpeg-srgb", srgb, smooth, tolerance=10)
    yield Case("jpeg-cut", data[: len(data) // 2], reason="is broken")
    yield Case("gif", _saved(Image.fromarray(noise.gray()), "GIF"), reason="is not a PNG, JPEG, TIFF or DICOM file")
    yield Case("webp", _saved(Image.fromarray(smooth), "WEBP"), reason="is not a PNG, JPEG, TIFF or DICOM file")
    yield Case("text", b"no image" * 40, reason="is not a PNG, JPEG, TIFF or DICOM file")


def _turned(noise: _Noise) -> Iterator[Case]:
    """As a camera stores an image that was held in each of the eight orientations."""
    for orientation, kind in itertools.product(range(1, 9), ("PNG", "JPEG", "TIFF")):
        pixels = noise.smooth(3) if kind == "JPEG" else noise.rgb()
        image = Image.fromarray(pixels)
        stored = image.transpose(_METHODS[orientation]) if orientation > 1 else image
        if kind == "TIFF":
            data = tiff(np.asarray(stored).astype(int), 8, 2, tags={274: (3, [orientation])})
        else:
            exif = Image.Exif()
            exif[0x0112] = orientation
            data = _saved(stored, kind, exif=exif, **({"quality": 98} if kind == "JPEG" else {}))
        yield Case(f"orientation-{orientation}-{kind}", data, pixels, tolerance=10 if kind == "JPEG" else 1)


def _dicoms(noise: _Noise) -> Iterator[Case]:
    make: Callable[..., bytes] = dicom
    for syntax in (uid.ImplicitVRLittleEndian, uid.ExplicitVRLittleEndian, uid.ExplicitVRBigEndian):
        gray = noise.gray()
        yield Case(f"dicom-gray-{syntax.name}", make(gray, syntax=syntax), gray)
        gray = noise.gray()
        window = {"WindowCenter": "32767.5", "WindowWidth": "65536"}
        wide = gray.astype(np.uint16) * 257
        yield Case(f"dicom-16-{syntax.name}", make(wide, syntax=syntax, **window), gray, kinds=("DEPTH_REDUCED",))
    gray = noise.gray()
    yield Case("dicom-inverted", make(255 - gray, PhotometricInterpretation="MONOCHROME1"), gray)
    rgb = noise.rgb()
    yield Case("dicom-rgb", make(rgb), rgb)
    frames = np.stack([noise.gray() for _ in range(3)])
    yield Case("dicom-frames", make(frames, frames=3), frames[0])
    jpeg = _saved(Image.fromarray(noise.smooth(1)), "JPEG", quality=98)
    decoded = np.asarray(Image.open(io.BytesIO(jpeg)))
    yield Case("dicom-jpeg", make(gray, syntax=uid.JPEGBaseline8Bit, encoded=[jpeg]), decoded)
    yield Case("dicom-cut", make(gray)[:300], reason="DICOM")
    yield Case("dicom-short", make(gray)[:-100], reason="DICOM")
