"""Writes six pictures of the web page, to be looked at: `make screenshots`.

The list of models, the result of an image and that of a patient, each on a desktop with light colors and on a phone
with dark colors.
"""

import io
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
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
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    page.locator("#image-files").set_input_files(
        {"name": "chest.png", "mimeType": "image/png", "buffer": file.getvalue()}
    )
    expect(page.locator(".image-label")).to_be_visible()


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
    "patient": ("/#/models/breast-cancer-risk/1", predict),
}
"""Path and preparation of each view."""

if __name__ == "__main__":
    main(Path(sys.argv[1]))
