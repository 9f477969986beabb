"""Examples of what an image classifier looks at: class activation and occlusion, drawn over pictures."""

from functools import partial

import numpy as np
import onnxruntime
from matplotlib.figure import Figure
from numpy.typing import NDArray

from medserve_proto.v1 import manifest_pb2 as pb
from medserve_training.card.parts import Picture, Pictures, Section
from medserve_training.card.svg import draw, labelled
from medserve_training.data.splits import Images
from medserve_training.export.inference import predict

Pixels = NDArray[np.uint8]
Map = NDArray[np.float32]
# A licence that lets pictures be shown where their source is named, as it is beside them.
_PERMITTED = "CC BY 4.0"
_GRID = 7


def examples(manifest: pb.Manifest, session: onnxruntime.InferenceSession, test: Images) -> Section:
    """A picture for each way to be right or wrong; made-up ones where the data's licence does not let them be shown."""
    task = manifest.image_classification
    shape = (task.input.height, task.input.width, -1)
    if _PERMITTED in manifest.training.data:
        chosen = _outcomes(task, predict(session, test.pixels), test.labels)
        pictures = [(f"test picture {index}: {words}", test.pixels[index]) for words, index in chosen]
        source = f"Pictures: {manifest.training.data}; enlarged, nothing else was changed."
    else:
        rows = [np.frombuffer(row.pixels, np.uint8).reshape(shape) for row in manifest.reference[:3]]
        pictures = [(f"made-up picture {index}", pixels) for index, pixels in enumerate(rows)]
        source = "The pictures are made up, and no patient's."
    drawn = [_picture(task, session, caption, pixels) for caption, pixels in pictures]
    text = (
        "Left the picture, then where the answer comes from. Orange speaks for the label named, purple against it; "
        "each map has a scale of its own. Occlusion: how far the label's probability falls where a patch is covered."
    )
    return Section("What it looks at", [text, Pictures(drawn), source])


def _outcomes(
    task: pb.ImageClassificationTask, probabilities: NDArray[np.float32], labels: NDArray[np.int64]
) -> list[tuple[str, int]]:
    """The first picture of the split for each pair of truth and decision (with many labels, right and wrong)."""
    decision = probabilities.argmax(axis=1)
    if task.operating_points:
        threshold = {entry.name: entry.threshold for entry in task.operating_points}[task.default_operating_point]
        decision = (probabilities[:, 1] >= threshold).astype(np.int64)
    groups = [(labels == truth) & (decision == answer) for truth in (1, 0) for answer in (1, 0)]
    if len(task.labels) > 2:
        groups = [labels == decision, labels != decision]
    first = [int(np.flatnonzero(group)[0]) for group in groups if group.any()]
    return [(f"truth {task.labels[labels[index]]}, decided {task.labels[decision[index]]}", index) for index in first]


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
    return Picture(labelled(svg, caption), caption)


def _panels(pixels: Pixels, maps: dict[str, Map]) -> Figure:
    figure = Figure(figsize=(1.5 * (1 + len(maps)), 1.75), layout="constrained")
    panels = figure.subplots(1, 1 + len(maps))
    height, width = pixels.shape[:2]
    picture = pixels if pixels.shape[2] == 3 else pixels[..., 0]
    for axes, (title, grid) in zip(panels, {"picture": None, **maps}.items(), strict=True):
        show = partial(axes.imshow, interpolation="none", extent=(0, width, height, 0))
        show(picture, cmap="gray", vmin=0, vmax=255)
        if grid is not None:
            bound = max(float(np.abs(grid).max()), 1e-6)
            show(grid, cmap="PuOr_r", vmin=-bound, vmax=bound, alpha=0.55)
        axes.set_title(title, fontsize="small")
        axes.set_axis_off()
    return figure


def cover(pixels: Pixels) -> Pixels:
    """The picture with each patch of a grid covered by its mean, uint8 [patches, height, width, channels].

    Zeiler & Fergus (2014), section 4.2. A patch is twice as wide and high as its cell and lies in its middle.
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
