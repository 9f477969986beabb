"""Saliency examples of an image classifier: class activation and occlusion maps drawn over images."""

from functools import partial

import numpy as np
import onnxruntime
from matplotlib.figure import Figure
from numpy.typing import NDArray

from medserve_proto.v1 import manifest_pb2 as pb
from medserve_training.card.parts import Picture, Pictures, Section
from medserve_training.card.svg import draw, labeled
from medserve_training.data.splits import Images
from medserve_training.export.inference import predict
from medserve_training.export.remeasure import Measured

Pixels = NDArray[np.uint8]
Map = NDArray[np.float32]
# These licenses let images be reproduced with attribution, which the card gives next to them.
_PERMITTED = ("CC BY 4.0", "CC0")
_GRID = 7


def permitted(measured: Measured) -> bool:
    """Returns whether the card may show images of the data: by its license, or by the recipe."""
    return measured.recipe.card.pictures or any(name in measured.fresh.training.data for name in _PERMITTED)


def examples(measured: Measured, session: onnxruntime.InferenceSession, test: Images) -> Section:
    """Draws one test image per outcome; synthetic images where test images may not be shown."""
    manifest = measured.fresh
    task = manifest.image_classification
    shape = (task.input.height, task.input.width, -1)
    if permitted(measured):
        chosen = _outcomes(task, predict(session, test.pixels), test.labels)
        pictures = [(f"test image {index}: {words}", test.pixels[index]) for words, index in chosen]
        source = f"Images: {manifest.training.data}; enlarged, otherwise unchanged."
    else:
        rows = [np.frombuffer(row.pixels, np.uint8).reshape(shape) for row in manifest.reference[:3]]
        pictures = [(f"synthetic image {index}", pixels) for index, pixels in enumerate(rows)]
        source = "The images are synthetic; none is of a patient."
    drawn = [_picture(task, session, caption, pixels) for caption, pixels in pictures]
    text = (
        "Left: the image; right: saliency maps. Orange is evidence for the named label, purple evidence against it; "
        "each map has its own scale. Occlusion: the decrease of the label's probability when a patch is covered."
    )
    return Section("Saliency maps", [text, Pictures(drawn), source])


def _outcomes(
    task: pb.ImageClassificationTask, probabilities: NDArray[np.float32], labels: NDArray[np.int64]
) -> list[tuple[str, int]]:
    """Returns the first image for each pair of truth and decision (with more than two labels, correct and wrong)."""
    decision = probabilities.argmax(axis=1)
    if task.operating_points:
        threshold = {entry.name: entry.threshold for entry in task.operating_points}[task.default_operating_point]
        decision = (probabilities[:, 1] >= threshold).astype(np.int64)
    groups = [(labels == truth) & (decision == answer) for truth in (1, 0) for answer in (1, 0)]
    if len(task.labels) > 2:
        groups = [labels == decision, labels != decision]
    first = [int(np.flatnonzero(group)[0]) for group in groups if group.any()]
    return [(f"truth {task.labels[labels[index]]}, predicted {task.labels[decision[index]]}", index) for index in first]


def _picture(
    task: pb.ImageClassificationTask, session: onnxruntime.InferenceSession, caption: str, pixels: Pixels
) -> Picture:
    (probabilities,) = predict(session, pixels[np.newaxis])
    label = 1 if len(task.labels) == 2 else int(probabilities.argmax())
    maps = {}
    if task.HasField("class_activation"):
        maps["class activation"] = predict(session, pixels[np.newaxis], "class_activation")[0, label]
    covered = predict(session, cover(pixels))[:, label]
    maps["occlusion"] = (probabilities[label] - covered).reshape(_cells(pixels))
    caption = f"{caption}; p({task.labels[label]}) = {probabilities[label]:.2f}"
    (svg,) = draw(lambda: {"maps": _panels(pixels, maps)}, caption).values()
    return Picture(labeled(svg, caption), caption)


def _panels(pixels: Pixels, maps: dict[str, Map]) -> Figure:
    figure = Figure(figsize=(1.5 * (1 + len(maps)), 1.75), layout="constrained")
    panels = figure.subplots(1, 1 + len(maps))
    height, width = pixels.shape[:2]
    picture = pixels if pixels.shape[2] == 3 else pixels[..., 0]
    for axes, (title, grid) in zip(panels, {"image": None, **maps}.items(), strict=True):
        show = partial(axes.imshow, interpolation="none", extent=(0, width, height, 0))
        show(picture, cmap="gray", vmin=0, vmax=255)
        if grid is not None:
            bound = max(float(np.abs(grid).max()), 1e-6)
            show(grid, cmap="PuOr_r", vmin=-bound, vmax=bound, alpha=0.55)
        axes.set_title(title, fontsize="small")
        axes.set_axis_off()
    return figure


def cover(pixels: Pixels) -> Pixels:
    """Returns copies of the image, each with one patch set to the image mean, uint8 [patches, height, width, channels].

    Zeiler & Fergus (2014), section 4.2. The patches are centered on the cells of a grid and twice as wide and high.
    """
    height, width = pixels.shape[:2]
    rows, columns = _cells(pixels)
    covered = np.repeat(pixels[np.newaxis], rows * columns, axis=0)
    mean = pixels.mean(axis=(0, 1)).round().astype(np.uint8)
    for index, (row, column) in enumerate(np.ndindex(rows, columns)):
        covered[index, _span(row, height, rows), _span(column, width, columns)] = mean
    return covered


def _cells(pixels: Pixels) -> tuple[int, int]:
    return min(_GRID, pixels.shape[0]), min(_GRID, pixels.shape[1])


def _span(index: int, size: int, cells: int) -> slice:
    return slice(max(0, round((index - 0.5) * size / cells)), round((index + 1.5) * size / cells))
