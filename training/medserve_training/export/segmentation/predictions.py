"""Writes the answers of a segmentation model for each image."""

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from medserve_training.metrics.segmented import Segmented


def write_predictions(segmented: Mapping[str, Sequence[Segmented]], labels: Sequence[str], folder: Path) -> None:
    """Writes predictions.csv, the figures of each image, and predictions.npz, the objects found.

    The latter has an array "SPLIT/IMAGE" for each image: the number of the object at each pixel, 0 for background,
    int32 [labels, h, w].

    Args:
        segmented: The segmented images of each split.
        labels: Names of the labels.
        folder: Output folder.
    """
    rows = [_row(split, one, labels) for split, images in segmented.items() for one in images]
    with (folder / "predictions.csv").open("w", newline="", encoding="utf-8") as file:
        table = csv.DictWriter(file, list(dict.fromkeys(column for row in rows for column in row)))
        table.writeheader()
        table.writerows(rows)
    arrays = {f"{split}/{one.image.name}": one.labels for split, images in segmented.items() for one in images}
    np.savez_compressed(folder / "predictions.npz", allow_pickle=False, **arrays)


def _row(split: str, one: Segmented, labels: Sequence[str]) -> dict[str, object]:
    image = one.image
    row: dict[str, object] = {"split": split, "image": image.name, "group": image.group, "kind": image.kind}
    for label, true, found in zip(labels, image.labels, one.labels, strict=True):
        row |= {f"{label}: objects found": int(found.max()), f"{label}: true objects": len(np.unique(true[true > 0]))}
    return row | one.figures | {"novelty": one.novelty, "measure_mm": one.measure, "reference_mm": image.reference}
