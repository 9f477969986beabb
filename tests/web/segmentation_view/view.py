"""The segmentation view as its user works with it, and models for it whose answers are known."""

import io
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from medserve_proto.v1 import manifest_pb2 as pb
from samples import onnx_models, segmentation_models
from web.browser import Locator, Opened, Page, expect

MARKUP = "<img src=x onerror=alert(1)>"
HEIGHT, WIDTH = 60, 80
BIG, HOLLOW, SMALL = (8, 12, 24, 16), (50, 6, 12, 12), (40, 40, 6, 6)
"""Left, top, width and height of the bright areas of the picture; the middle of one is dark."""
HOLE = (54, 10, 4, 4)


def save_models(folder: Path) -> None:
    """Saves models for pixels brighter than half.

    Of `spots`, the count has an error and there are two members; `head` measures the largest area at a fixed size of
    60 x 80; `pairs` has a second label, dark pixels, whose name is markup.
    """
    error = pb.CountError(low_ratio=0.8, high_ratio=1.25, coverage=0.9)
    circumference = pb.Measure(
        name="head circumference", kind=pb.Measure.KIND_ELLIPSE_CIRCUMFERENCE, bias_mm=0.5, agreement_mm=2
    )
    head = segmentation_models.bright("head", largest_only=True, fill_holes=True, measures=[circumference])
    labels = {
        "spots": [segmentation_models.bright(count_error=error)],
        "head": [head],
        "pairs": [segmentation_models.bright(), segmentation_models.bright(f"ground{MARKUP}", largest_only=True)],
    }
    for name, found in labels.items():
        target = segmentation_models.stretched(64, 80) if name == "head" else segmentation_models.tiled()
        manifest = segmentation_models.manifest(target, found, ensemble=name == "spots")
        onnx_models.save(folder, name, segmentation_models.spots(manifest))


def picture(background: int = 0) -> NDArray[np.uint8]:
    """Returns an image of three bright areas, one of which has a hole."""
    pixels = np.full((HEIGHT, WIDTH), background, np.uint8)
    for left, top, width, height in (BIG, HOLLOW, SMALL):
        pixels[top : top + height, left : left + width] = 255
    left, top, width, height = HOLE
    pixels[top : top + height, left : left + width] = background
    return pixels


def crowd(across: int, down: int) -> NDArray[np.uint8]:
    """Returns an image of bright squares in rows, each of 3 x 3 pixels, at a distance of 6 pixels."""
    square = np.zeros((6, 6), np.uint8)
    square[1:4, 1:4] = 255
    return np.tile(square, (down, across))


def encoded(pixels: NDArray[np.uint8], kind: str = "PNG") -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind)
    return file.getvalue()


def visit(opened: Opened, model: str = "spots", language: str = "en") -> Page:
    """Opens the view of a model."""
    page = opened.visit(f"/?language={language}#/models/{model}/1")
    expect(page.locator("#image-files")).to_be_attached()
    return page


def segment(page: Page, *files: tuple[str, bytes]) -> None:
    """Chooses files by their names and contents, and waits for the result of the first."""
    chosen = [{"name": name, "mimeType": "application/octet-stream", "buffer": data} for name, data in files]
    page.locator("#image-files").set_input_files(chosen)  # type: ignore[arg-type]  # a list of FilePayload
    expect(page.get_by_role("heading", name=files[0][0], level=2)).to_be_visible()
    expect(page.locator(".segmentation-stage")).to_be_visible()


def figure(page: Page, name: str) -> Locator:
    """Returns a figure of the summary."""
    return page.locator(".segmentation-figure").filter(has=page.get_by_text(name, exact=True))


def rows(page: Page) -> Locator:
    """Returns the rows of the table of objects."""
    return page.locator(".segmentation-objects tbody tr")


def selected(page: Page) -> Locator:
    """Returns the rows of the table of objects that are selected."""
    return page.locator(".segmentation-objects tbody tr[aria-current]")


def click(page: Page, x: float, y: float, width: int = WIDTH, height: int = HEIGHT) -> None:
    """Clicks on a pixel of the picture."""
    stage = page.locator(".segmentation-stage")
    box = stage.bounding_box()
    assert box is not None
    stage.click(position={"x": (x + 0.5) / width * box["width"], "y": (y + 0.5) / height * box["height"]})


def color(page: Page, layer: int, x: float, y: float, width: int = WIDTH, height: int = HEIGHT) -> list[int]:
    """Returns red, green, blue and opacity of a pixel of a layer, counted from the lowest."""
    script = """(canvas, [x, y]) => {
      const [left, top] = [Math.floor(x * canvas.width), Math.floor(y * canvas.height)];
      return [...canvas.getContext("2d").getImageData(left, top, 1, 1).data];
    }"""
    canvas = page.locator(".segmentation-stage canvas").nth(layer)
    found: list[int] = canvas.evaluate(script, [(x + 0.5) / width, (y + 0.5) / height])
    return found
