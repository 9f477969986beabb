"""Draws a map over the model's input image."""

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from medserve_images import Pixels
from medserve_server.explain.preview import to_picture, to_png

MIN_SIDE = 224
LEGEND = 28  # height in pixels, below the image
SUPPORTING, OPPOSING = np.array([214, 39, 40], np.float32), np.array([31, 119, 180], np.float32)  # red, blue
OPACITY = 0.65
ROUNDING = 1e-6  # smaller values are rounding errors


def overlay_size(height: int, width: int) -> tuple[int, int]:
    """Returns height and width of the overlay for an image of this size."""
    scale = _scale(height, width)
    return height * scale + LEGEND, width * scale


def draw(image: Pixels, values: NDArray[np.generic]) -> bytes:
    """Draws the map over the image: red for positive values, blue for negative ones, with opacity by magnitude.

    A legend below the image shows the value of the full colors.

    Args:
        image: uint8 [height, width, 1 or 3].
        values: float32 [rows, columns], a grid over the whole image.

    Returns:
        A PNG file.
    """
    height, width = image.shape[:2]
    scale = _scale(height, width)
    size = (width * scale, height * scale)
    background = np.asarray(to_picture(image).convert("RGB").resize(size, Image.Resampling.NEAREST), np.float32)
    smooth = Image.fromarray(values.astype(np.float32)).resize(size, Image.Resampling.BICUBIC)
    peak = float(np.abs(values).max())
    peak = peak if peak > ROUNDING else 0.0
    values_resized = np.asarray(smooth, np.float32).clip(-peak, peak)
    sheet = np.vstack([_blend(background, values_resized, peak), _legend(size[0])])
    drawing = Image.fromarray(sheet.round().astype(np.uint8))
    _label(drawing, peak)
    return to_png(drawing)


def _scale(height: int, width: int) -> int:
    """Returns the number of overlay pixels per image pixel along one axis."""
    return -(-MIN_SIDE // min(height, width)) if min(height, width) < MIN_SIDE else 1


def _blend(background: NDArray[np.float32], values: NDArray[np.float32], peak: float) -> NDArray[np.float32]:
    """Blends the colors of the values, [height, width], over an image, [height, width, 3]."""
    strength = OPACITY * np.abs(values)[..., None] / (peak or 1.0)
    color = np.where(values[..., None] > 0, SUPPORTING, OPPOSING)
    return np.asarray(background + (color - background) * strength, np.float32)


def _legend(width: int) -> NDArray[np.float32]:
    """Returns the legend: a color bar from the minimum to the maximum, below white space for the numbers."""
    strip = np.full((LEGEND, width, 3), 255, np.float32)
    values = np.linspace(-1, 1, width, dtype=np.float32)[None].repeat(LEGEND // 2, axis=0)
    strip[LEGEND // 2 :] = _blend(np.full((LEGEND // 2, width, 3), 128, np.float32), values, 1.0)
    return strip


def _label(drawing: Image.Image, peak: float) -> None:
    pen = ImageDraw.Draw(drawing)
    font = ImageFont.load_default(12)
    line = drawing.height - LEGEND
    for text, place, anchor in (
        (f"{-peak:.2g} against", 2, "la"),
        ("0", drawing.width // 2, "ma"),
        (f"for +{peak:.2g}", drawing.width - 2, "ra"),
    ):
        pen.text((place, line), text, fill="black", font=font, anchor=anchor)
