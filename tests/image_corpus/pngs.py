"""PNG files."""

import itertools
from collections.abc import Iterator

import numpy as np
from PIL import Image

from image_corpus.cases import HEIGHT, TRANSPARENT, WIDTH, Case, Noise, depth_warnings, saved, shown, spread
from samples.image_files import png


def pngs(noise: Noise) -> Iterator[Case]:
    for depth, interlaced in itertools.product((1, 2, 4, 8, 16), (False, True)):
        gray = spread(noise.gray(), depth)
        name = f"{depth}-{'interlaced' if interlaced else 'plain'}"
        data = png(gray[..., None], depth, 0, interlaced=interlaced)
        yield Case(f"png-gray-{name}", data, shown(gray, depth), kinds=depth_warnings(depth))
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
            kinds = depth_warnings(depth)
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
        "apng", saved(frames[0], "PNG", save_all=True, append_images=frames[1:]), reason="animated PNG (2 frames)"
    )


def transparent_pngs(noise: Noise) -> Iterator[Case]:
    for depth, interlaced in itertools.product((1, 2, 4, 8, 16), (False, True)):
        gray = spread(noise.gray(), depth)
        top = 2**depth - 1
        name = f"{depth}-{'interlaced' if interlaced else 'plain'}"
        gray[gray == 1] = 0
        for value, pixels in ((int(gray[5, 5]), None), (1, shown(gray, depth))):
            if value == 1 and depth == 1:
                continue
            data = png(gray[..., None], depth, 0, (b"tRNS", value.to_bytes(2)), interlaced=interlaced)
            kinds = () if pixels is None else depth_warnings(depth)
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
