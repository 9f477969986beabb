"""Maps, masks and outlines as PNG files."""

import math

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from medserve_images import Pixels
from medserve_server.explain.preview import to_picture, to_png

MAX_SIDE = 1024
"""Maximum height and width of a map or an overlay; masks have the size of the image."""
MAX_ID = 2**16 - 1
COLORS = np.array([[255, 221, 0], [0, 200, 255], [255, 64, 160], [64, 220, 64]], np.uint8)
"""Colors of the outlines by label, repeated after the last."""


def map_png(values: NDArray[np.float32], maximum: float) -> bytes:
    """Returns a map, [height, width], as an 8-bit gray PNG, reduced to MAX_SIDE, in which 255 is `maximum`."""
    reduced = np.asarray(Image.fromarray(values).reduce(_factor(*values.shape)))
    return to_png(Image.fromarray((reduced * (255 / maximum)).round().clip(0, 255).astype(np.uint8)))


def mask_png(labels: NDArray[np.int32]) -> bytes:
    """Returns the IDs of objects, [height, width], as a 16-bit gray PNG, with MAX_ID for all higher IDs."""
    return to_png(Image.fromarray(np.minimum(labels, MAX_ID).astype(np.uint16)))


def preview_png(image: Pixels) -> bytes:
    """Returns an image, uint8 [height, width, 1 or 3], as a PNG, reduced to MAX_SIDE."""
    return to_png(to_picture(image).reduce(_factor(*image.shape[:2])))


class Overlay:
    """Draws outlines over an image, reduced to MAX_SIDE.

    Args:
        image: uint8 [height, width, 1 or 3].
    """

    def __init__(self, image: Pixels) -> None:
        self._factor = _factor(*image.shape[:2])
        self._sheet = np.array(to_picture(image).reduce(self._factor).convert("RGB"))

    def draw(self, labels: NDArray[np.int32], index: int) -> None:
        """Draws the outlines of the objects of a label, [height, width], given the number of the label."""
        reduced = labels[:: self._factor, :: self._factor]
        self._sheet[_outlines(reduced)] = COLORS[index % len(COLORS)]

    def png(self) -> bytes:
        """Returns the drawing as an RGB PNG."""
        return to_png(Image.fromarray(self._sheet))


def _factor(height: int, width: int) -> int:
    """Returns the smallest whole number by which both sides are divided so that neither exceeds MAX_SIDE."""
    return math.ceil(max(height, width) / MAX_SIDE)


def _outlines(labels: NDArray[np.int32]) -> NDArray[np.bool_]:
    """Returns the pixels of objects that share a side with another object or the background, [height, width]."""
    edge = np.zeros(labels.shape, np.bool_)
    for here, there in ((np.s_[:, 1:], np.s_[:, :-1]), (np.s_[1:], np.s_[:-1])):
        differs = labels[here] != labels[there]
        edge[here] |= differs
        edge[there] |= differs
    return edge & (labels > 0)
