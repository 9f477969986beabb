"""Writes eight pictures of the web page, to be looked at, and that of the README: `make screenshots`.

The list of models, the result of an image, a segmented image and the result of a patient, each on a desktop with light
colors and on a phone with dark colors. `docs/web.png` is a copy of `web.png`, the upper part of one of them.
"""

import io
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from servers.server_process import running_server
from web.browser import Page, chromium, expect, opened

LOOKS = {"desktop": "light", "phone": "dark"}
"""Theme by size."""
NUMBERS = {"age": "55", "tumor_size": "22", "positive_nodes": "3", "progesterone_receptor": "120"}
CATEGORIES = ("post", "II", "yes")


def main(folder: Path) -> None:
    """Writes the pictures to a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    with running_server("--transport", "grpcio") as server, chromium() as browser:
        for size, theme in LOOKS.items():
            for name, (path, prepare) in VIEWS.items():
                with opened(browser, server.http_url, theme=theme, size=size) as found:
                    page = found.visit(path)
                    prepare(page)
                    page.wait_for_load_state("networkidle")
                    page.evaluate("scrollTo(0, 0)")
                    file = folder / f"{name}-{size}.png"
                    page.screenshot(path=file, full_page=True, animations="disabled")
                    sys.stdout.write(f"{file}\n")
    with Image.open(folder / "image-desktop.png") as picture:
        picture.crop((0, 0, picture.width, 860)).quantize(128).save(folder / "web.png", optimize=True)


def show_card(page: Page) -> None:
    """Opens the card of the last model."""
    page.locator("summary").last.click()
    expect(page.locator(".model-card")).to_be_visible()


def classify(page: Page) -> None:
    """Classifies a made-up image with the shades of a chest X-ray."""
    y, x = np.mgrid[-1:1:256j, -1:1:256j]
    lungs = sum(np.exp(-(((x - side) / 0.3) ** 2) - (y / 0.6) ** 2) for side in (-0.45, 0.45))
    shade = 60 * np.exp(-(((x - 0.5) / 0.2) ** 2) - ((y - 0.35) / 0.2) ** 2)
    pixels = np.clip(200 - 130 * lungs - 60 * y**2 + shade, 0, 255).astype(np.uint8)
    choose(page, "chest.png", pixels)
    expect(page.locator(".image-label")).to_be_visible()


def segment(page: Page) -> None:
    """Segments a made-up image with the shades of fluorescent nuclei, and selects one."""
    random = np.random.default_rng(1)
    y, x = np.mgrid[:360, :480]
    light = np.zeros(y.shape)
    for left, top, radius, shade in random.uniform((0, 0, 9, 90), (480, 360, 15, 200), (60, 4)):
        distance = np.hypot((x - left) * 1.3, y - top) - radius
        light = np.maximum(light, shade / (1 + np.exp(distance)))
    choose(page, "nuclei.png", (light + random.normal(12, 3, y.shape)).clip(0, 255).astype(np.uint8))
    page.locator(".segmentation-objects tbody tr").nth(2).click()


def choose(page: Page, name: str, pixels: NDArray[np.uint8]) -> None:
    """Chooses an image, gray [height, width], as a file."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    page.locator("#image-files").set_input_files({"name": name, "mimeType": "image/png", "buffer": file.getvalue()})


def predict(page: Page) -> None:
    """Predicts the risk of a made-up patient."""
    fields = page.locator(".patient-fields")
    for label in CATEGORIES:
        fields.get_by_label(label, exact=True).check()
    for index, value in enumerate(NUMBERS.values()):
        fields.locator("input:not([type=radio])").nth(index).fill(value)
    page.locator(".patient-form [type=submit]").click()
    expect(page.locator(".patient-result .chart").first).to_be_visible()


VIEWS: dict[str, tuple[str, Callable[[Page], None]]] = {
    "models": ("/", show_card),
    "image": ("/#/models/chest-xray/1", classify),
    "segmentation": ("/#/models/cell-nuclei/1", segment),
    "patient": ("/#/models/breast-cancer-risk/1", predict),
}
"""Path and preparation of each view."""

if __name__ == "__main__":
    main(Path(sys.argv[1]))
