"""Files of the corpus, and noise for their content."""

import io
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

HEIGHT, WIDTH = 21, 18
Pixels = NDArray[np.uint8]
TRANSPARENT = "transparent pixels"


@dataclass(frozen=True)
class Case:
    """A file and its expected outcome.

    Attributes:
        name: Description of the file.
        data: Content of the file.
        pixels: As a viewer displays them, uint8 [height, width] or [height, width, 3]; None if it is rejected.
        reason: Part of the reason for rejecting it.
        kinds: Kinds of the warnings, except sizes and colors.
        tolerance: Maximum error beyond 1, for lossy compression.
    """

    name: str
    data: bytes
    pixels: Pixels | None = None
    reason: str = ""
    kinds: tuple[str, ...] = ()
    tolerance: int = 1


class Noise:
    """Returns a different noise image on each call."""

    def __init__(self) -> None:
        self._generator = np.random.default_rng(0)

    def gray(self) -> Pixels:
        return self._generator.integers(0, 256, (HEIGHT, WIDTH), np.uint8)

    def rgb(self) -> Pixels:
        return self._generator.integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)

    def smooth(self, channels: int) -> Pixels:
        """Smooth images for lossy compression, of shapes [height, width] and [height, width, channels]."""
        steps = self._generator.integers(1, 4, (2, channels))
        rows, columns = np.arange(HEIGHT)[:, None, None], np.arange(WIDTH)[:, None]
        start = self._generator.integers(0, 120, channels)
        picture: Pixels = (start + rows * steps[0] + columns * steps[1]).astype(np.uint8)
        return picture[..., 0] if channels == 1 else picture


def spread(pixels: Pixels, bits: int) -> NDArray[np.int64]:
    """Expands 8-bit samples to `bits` bits."""
    samples: NDArray[np.int64] = np.round(pixels * ((2**bits - 1) / 255)).astype(np.int64)
    return samples


def shown(samples: NDArray[Any], bits: int) -> Pixels:
    """Reduces samples of `bits` bits to 8."""
    pixels: Pixels = np.round(samples * (255 / (2**bits - 1))).astype(np.uint8)
    return pixels


def depth_warnings(bits: int) -> tuple[str, ...]:
    return ("DEPTH_REDUCED",) if bits > 8 else ()


def saved(image: Image.Image, kind: str, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()
