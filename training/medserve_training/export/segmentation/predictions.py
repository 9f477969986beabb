"""Writes the answers of a segmentation model for each image."""

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from medserve_training.export.segmentation.measure import Segmented
from medserve_training.metrics.objects import average_precision
from medserve_training.metrics.overlap import dice

_COLUMNS = (
    "split", "image", "group", "kind", "label", "objects", "true_objects", "dice", "average_precision", "novelty",
    "measure_mm", "reference_mm",
)  # fmt: skip


def write_predictions(segmented: Mapping[str, Sequence[Segmented]], labels: Sequence[str], folder: Path) -> None:
    """Writes predictions.csv, a row for each image and label, and predictions.npz.

    The latter has an array SPLIT/IMAGE for each image: the number of the object at each pixel, 0 for background,
    int32 [labels, h, w].

    Args:
        segmented: The segmented images of each split.
        labels: Names of the labels.
        folder: Output folder.
    """
    with (folder / "predictions.csv").open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(_COLUMNS)
        for split, images in segmented.items():
            for one in images:
                for label, true, found in zip(labels, one.image.labels, one.labels, strict=True):
                    table.writerow(
                        [
                            *(split, one.image.name, one.image.group, one.image.kind, label),
                            *(int(found.max()), len(np.unique(true[true > 0]))),
                            *(dice(true > 0, found > 0), average_precision(true, found, 0.5)),
                            *(one.novelty, one.measure, one.image.reference),
                        ]
                    )
    arrays = {f"{split}/{one.image.name}": one.labels for split, images in segmented.items() for one in images}
    np.savez_compressed(folder / "predictions.npz", allow_pickle=False, **arrays)
