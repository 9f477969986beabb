"""TIFF files."""

import itertools
from collections.abc import Iterator
from typing import Any, Literal

import numpy as np
from PIL import Image

from image_corpus.cases import HEIGHT, TRANSPARENT, WIDTH, Case, Noise, depth_warnings, saved, shown, spread
from samples.image_files import DEFLATE, LZW, NONE, PACK_BITS, tiff

_COMPRESSIONS = {"none": NONE, "deflate": DEFLATE, "lzw": LZW, "pack-bits": PACK_BITS}
_LAYOUTS: dict[str, dict[str, Any]] = {"one-strip": {}, "strips": {"rows": 5}, "tiles": {"tile": (16, 16)}}
_ORDERS: tuple[Literal["<", ">"], ...] = ("<", ">")


def gray_tiffs(noise: Noise) -> Iterator[Case]:
    for bits, white, order, compression, layout in itertools.product(
        (1, 2, 4, 8, 10, 12, 14, 16), (False, True), _ORDERS, _COMPRESSIONS, _LAYOUTS
    ):
        values = spread(noise.gray(), bits)
        stored = 2**bits - 1 - values if white else values
        options = {"order": order, "compression": _COMPRESSIONS[compression], **_LAYOUTS[layout]}
        name = f"tiff-{'white' if white else 'black'}-is-zero-{bits}-{order}-{compression}-{layout}"
        data = tiff(stored[..., None], bits, 0 if white else 1, **options)
        yield Case(name, data, shown(values, bits), kinds=depth_warnings(bits))
    for bits in (1, 8, 16):
        values = spread(noise.gray(), bits)
        data = tiff(values[..., None], bits, 1, fill_order=2)
        yield Case(f"tiff-{bits}-fill-order-2", data, shown(values, bits), kinds=depth_warnings(bits))


def color_tiffs(noise: Noise) -> Iterator[Case]:
    for bits, order, compression, layout, separate in itertools.product(
        (8, 10, 12, 14, 16), _ORDERS, _COMPRESSIONS, _LAYOUTS, (False, True)
    ):
        values = spread(noise.rgb(), bits)
        options = {"order": order, "compression": _COMPRESSIONS[compression], "separate": separate, **_LAYOUTS[layout]}
        name = f"tiff-rgb-{bits}-{order}-{compression}-{layout}-{'separate' if separate else 'together'}"
        yield Case(name, tiff(values, bits, 2, **options), shown(values, bits), kinds=depth_warnings(bits))
    for bits, separate in itertools.product((8, 16), (False, True)):
        pixels = noise.rgb()
        inks = spread(np.dstack([pixels, noise.gray()]), bits)
        ratio = inks / (2**bits - 1)
        rgb = np.round(255 * (1 - ratio[..., :3]) * (1 - ratio[..., 3:])).astype(np.uint8)
        yield Case(
            f"tiff-cmyk-{bits}-{separate}", tiff(inks, bits, 5, separate=separate), rgb, kinds=depth_warnings(bits)
        )
        for kind, alpha in (("associated", 1), ("unassociated", 2)):
            pixels = noise.rgb()
            opaque = np.dstack([spread(pixels, bits), np.full((HEIGHT, WIDTH), 2**bits - 1)])
            tags = {338: (3, [alpha])}
            name = f"tiff-rgb-{bits}-opaque-{kind}-{separate}"
            yield Case(name, tiff(opaque, bits, 2, separate=separate, tags=tags), pixels, kinds=depth_warnings(bits))
            seen_through = opaque.copy()
            seen_through[3, 4, 3] //= 2
            name = f"tiff-rgb-{bits}-transparent-{kind}-{separate}"
            yield Case(name, tiff(seen_through, bits, 2, separate=separate, tags=tags), reason=TRANSPARENT)


def other_tiffs(noise: Noise) -> Iterator[Case]:
    for bits, compression, layout, order in itertools.product((8, 16), (DEFLATE, LZW), _LAYOUTS, _ORDERS):
        options = {"order": order, "compression": compression, "predictor": 2, **_LAYOUTS[layout]}
        gray, rgb = noise.gray(), noise.rgb()
        name = f"{bits}-{order}-{compression}-{layout}"
        data = tiff(spread(gray, bits)[..., None], bits, 1, **options)
        yield Case(f"tiff-predictor-{name}", data, gray, kinds=depth_warnings(bits))
        yield Case(
            f"tiff-rgb-predictor-{name}", tiff(spread(rgb, bits), bits, 2, **options), rgb, kinds=depth_warnings(bits)
        )
    for order, bits in itertools.product(_ORDERS, (8, 12, 16)):
        gray = noise.gray()
        data = tiff(spread(gray, bits)[..., None], bits, 1, order=order, big=True, rows=4)
        yield Case(f"tiff-big-{bits}-{order}", data, gray, kinds=depth_warnings(bits))
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
        yield Case(f"tiff-{compression}", saved(Image.fromarray(bilevel), "TIFF", compression=compression), pixels)
    for channels, quality in ((1, 95), (3, 95)):
        smooth = noise.smooth(channels)
        data = saved(Image.fromarray(smooth), "TIFF", compression="jpeg", quality=quality)
        yield Case(f"tiff-jpeg-{channels}", data, smooth, tolerance=12)


def refused_tiffs(noise: Noise) -> Iterator[Case]:
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
    yield refused("bits-differ", tiff(rgb, 8, 2, tags={258: (3, [8, 8, 16])}), "samples of different bit depths")
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
    yield refused("overlap", tiff(gray, 8, 1, rows=5, tags={273: (4, [8] * 5), 279: (4, [900] * 5)}), "is corrupt")
    yield refused("beyond", tiff(gray, 8, 1, tags={273: (4, [10**9])}), "is corrupt")
    yield refused("too-few", tiff(gray, 8, 1, rows=5, tags={279: (4, [1])}), "is corrupt")
    yield refused("short", tiff(gray, 8, 1, parts=[bytes(100)]), "is corrupt")
    yield refused(
        "huge-tile", tiff(gray, 8, 1, tile=(16, 16), tags={322: (4, [60_000]), 323: (4, [60_000])}), "too large"
    )
