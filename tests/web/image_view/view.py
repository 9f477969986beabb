"""The image view as its user works with it, and models for it whose answers are known."""

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper
from PIL import Image

from medserve_proto.v1 import manifest_pb2 as pb
from samples import explained_models, onnx_models
from samples.explained_models import HEIGHT, WIDTH
from web.browser import Opened, Page, expect

CHANNELS = 14
MARKUP = "<img src=x onerror=alert(1)>"
THRESHOLDS = [index / 100 for index in range(100)]


def lesions() -> onnx.ModelProto:
    """The model `lesions` with operating points, threshold curves and a layer of 14 equal channels."""
    manifest = explained_models.lesions_manifest()
    task = manifest.image_classification
    task.feature_maps.add(layer="wide", channels=CHANNELS, size=pb.MapSize(height=2, width=3))
    for name, threshold in (("balanced", 0.5), ("sensitive", 0.255)):
        task.operating_points.add(
            name=name,
            positive_label="lesion",
            threshold=threshold,
            sensitivity=1 - threshold,
            specificity=threshold,
            chosen_on="validation",
        )
    task.default_operating_point = "balanced"
    for split, lost in (("test", 0.001), ("validation", 0.0)):
        task.threshold_curves.add(
            positive_label="lesion",
            data="made up",
            split=split,
            thresholds=THRESHOLDS,
            sensitivities=[1 - threshold - lost for threshold in THRESHOLDS],
            specificities=THRESHOLDS,
        )
    model = explained_models.lesions(manifest)
    model.graph.node.append(helper.make_node("Concat", ["feature_map.pool"] * CHANNELS, ["feature_map.wide"], axis=1))
    shape: list[str | int | None] = ["batch", CHANNELS, 2, 3]
    model.graph.output.append(helper.make_tensor_value_info("feature_map.wide", TensorProto.FLOAT, shape))
    return model


def close_lesions() -> onnx.ModelProto:
    """The model `lesions` with a threshold just above 0.9 * 100 / 255, the p(lesion) of brightness 100.

    Another operating point has the other label as positive.
    """
    manifest = explained_models.plain_lesions_manifest()
    task = manifest.image_classification
    task.operating_points.add(name="close", positive_label="lesion", threshold=0.35302, chosen_on="validation")
    task.operating_points.add(name="other", positive_label="clear", threshold=0.7777, chosen_on="validation")
    task.default_operating_point = "close"
    return explained_models.lesions(manifest)


def hostile_lesions() -> onnx.ModelProto:
    """The model `lesions` with markup in the texts of its manifest that results contain."""
    manifest = explained_models.plain_lesions_manifest()
    task = manifest.image_classification
    task.labels[1] += MARKUP
    task.operating_points.add(name=f"point{MARKUP}", positive_label=task.labels[1], threshold=0.5, chosen_on=MARKUP)
    task.default_operating_point = task.operating_points[0].name
    return explained_models.lesions(manifest)


def save_lesions(folder: Path) -> None:
    """Saves `lesions` and its variants, of which `plain-lesions` has no operating points and explanations."""
    onnx_models.save(folder, "lesions", lesions())
    onnx_models.save(folder, "close-lesions", close_lesions())
    onnx_models.save(folder, "hostile-lesions", hostile_lesions())
    onnx_models.save(folder, "plain-lesions", explained_models.lesions(explained_models.plain_lesions_manifest()))


def even(brightness: int) -> NDArray[np.uint8]:
    """Returns an image of the model's size; p(lesion) is 0.9 times its brightness divided by 255."""
    return np.full((HEIGHT, WIDTH), brightness, np.uint8)


def encoded(pixels: NDArray[np.uint8], kind: str = "PNG") -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind)
    return file.getvalue()


def visit(opened: Opened, model: str = "lesions", language: str = "en") -> Page:
    """Opens the view of an image model."""
    page = opened.visit(f"/?language={language}#/models/{model}/1")
    expect(page.locator("#image-files")).to_be_attached()
    return page


def choose(page: Page, *files: tuple[str, bytes]) -> None:
    """Chooses files by their names and contents."""
    chosen = [{"name": name, "mimeType": "application/octet-stream", "buffer": data} for name, data in files]
    page.locator("#image-files").set_input_files(chosen)  # type: ignore[arg-type]  # a list of FilePayload


def classify(page: Page, name: str, data: bytes) -> None:
    """Chooses one file and waits for its result."""
    choose(page, (name, data))
    expect(page.get_by_role("heading", name=name, level=2)).to_be_visible()
    expect(page.locator(".image-decision")).to_be_visible()


def cells(page: Page) -> list[list[str]]:
    """Returns the texts of the table of files, without its header."""
    return [
        [cell.strip() for cell in row.locator("th, td").all_inner_texts()]
        for row in page.locator(".files-list tbody tr").all()
    ]


def expect_statuses(page: Page, statuses: Sequence[str]) -> None:
    """Waits until the table of files has these texts, or texts that contain them, in its last column."""
    expect(page.locator(".files-list tbody td:last-child")).to_contain_text(list(statuses))
