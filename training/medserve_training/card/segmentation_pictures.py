"""Examples of a segmentation model: test images with the true objects and those found outlined, side by side."""

import base64
import io
from collections.abc import Sequence

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage
from skimage.measure import label as connected

from medserve_masks import outline
from medserve_training.card.parts import Picture, Pictures, Section
from medserve_training.card.svg import labeled
from medserve_training.metrics.segmented import Segmented
from medserve_training.plots.style import COLORS

# Side of the largest part of an image that is shown, in pixels, and its number of colors; the card has to be small.
_SIDE = 256
_COLORS = 64
# Distance between the two panels, in pixels.
_GAP = 4


def examples(images: Sequence[tuple[str, Segmented]], attribution: str, *, permitted: bool) -> Section:
    """Draws test images, or states that they may not be shown.

    Args:
        images: Captions and images.
        attribution: Name and license of the data.
        permitted: Whether images may be shown.
    """
    if not permitted:
        return Section("Examples", ["The license of the data does not permit showing its images here."])
    drawn = [
        Picture(labeled(_panels(one, f"example-{index}"), caption), caption)
        for index, (caption, one) in enumerate(images)
    ]
    text = f"Left: the truth; right: the answer. Of larger images, the central {_SIDE} by {_SIDE} pixels are shown."
    source = f"Images: {attribution}; reduced to {_COLORS} colors, and cropped if larger; otherwise unchanged."
    return Section("Examples", [text, Pictures(drawn), source])


def _panels(one: Segmented, name: str) -> Markup:
    """Returns an <svg> element that contains the image once, under a name that is unique on the page."""
    pixels = one.image.pixels
    rows, columns = (slice(max(0, size - _SIDE) // 2, (size + min(size, _SIDE)) // 2) for size in pixels.shape[:2])
    pixels = pixels[rows, columns]
    height, width = pixels.shape[:2]
    across = width + _GAP
    image = Markup('<image id="{}" width="{}" height="{}" href="data:image/png;base64,{}"/>').format(
        name, width, height, _png(pixels)
    )
    answer = Markup('<use href="#{}" x="{}"/><g transform="translate({})">{}</g>').format(
        name, across, across, _outlines(one.labels[:, rows, columns])
    )
    truth = _outlines(one.image.labels[:, rows, columns])
    return Markup('<svg viewBox="0 0 {} {}" width="100%">{}{}{}</svg>').format(
        across + width, height, image, truth, answer
    )


def _png(pixels: NDArray[np.uint8]) -> str:
    image = Image.fromarray(pixels) if pixels.shape[2] == 3 else Image.fromarray(pixels[..., 0])
    stream = io.BytesIO()
    image.quantize(_COLORS, dither=Image.Dither.NONE).save(stream, format="PNG", optimize=True)
    return base64.b64encode(stream.getvalue()).decode()


def _outlines(labels: NDArray[np.int32]) -> Markup:
    """Returns a <path> element for each label, which outlines all of its objects."""
    paths = []
    for index, objects in enumerate(labels):
        # An object may consist of several parts, also because it was cropped.
        parts: NDArray[np.int32] = connected(objects, connectivity=1).astype(np.int32)  # type: ignore[no-untyped-call]
        lines = []
        for number, (rows, columns) in enumerate(ndimage.find_objects(parts), start=1):
            box = np.array([columns.start, rows.start, columns.stop - columns.start, rows.stop - rows.start])
            corners = outline(parts, number, box).tolist()
            lines.append("M" + " ".join(f"{x} {y}" for x, y in corners) + "Z")
        paths.append(
            Markup(
                '<path d="{}" fill="none" stroke="{}" stroke-width="1.5" vector-effect="non-scaling-stroke"/>'
            ).format("".join(lines), COLORS[(1 + index) % len(COLORS)])
        )
    return Markup("").join(paths)
