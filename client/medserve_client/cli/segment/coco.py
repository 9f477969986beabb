"""The file of `medserve segment --coco`: instance annotations, https://cocodataset.org/#format-data."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from medserve_client.cli.results_file import written_whole
from medserve_client.results import ModelDescription
from medserve_client.segmentation.results import SegmentationResult, SegmentedObject


@contextmanager
def coco_file(path: Path, model: ModelDescription) -> Iterator[Callable[[str, SegmentationResult], None]]:
    """Yields a function that adds an image file and its objects; `path` is replaced when the block succeeds.

    Annotations have an additional `score`, the mean probability of the object's pixels.

    Raises:
        UsageError: the file cannot be written.
    """
    labels = model.manifest.image_segmentation.labels
    categories = {label.name: number for number, label in enumerate(labels, 1)}
    images: list[dict[str, object]] = []
    annotations = 0
    with written_whole(path) as file:
        # The annotations first, so that they need not be held in memory.
        file.write(b'{"annotations": [')

        def add(name: str, result: SegmentationResult) -> None:
            nonlocal annotations
            images.append({"id": len(images) + 1, "file_name": name, "height": result.height, "width": result.width})
            for label in result.labels:
                for one in label.objects:
                    separator = ",\n" if annotations else "\n"
                    annotations += 1
                    ids = {"id": annotations, "image_id": len(images), "category_id": categories[label.label]}
                    file.write((separator + json.dumps(ids | _annotation(one))).encode())

        yield add
        rest = {
            "images": images,
            "categories": [{"id": number, "name": name} for name, number in categories.items()],
            "info": {"description": f"{model.name}, version {model.version}, SHA-256 {model.sha256}"},
        }
        file.write(f"\n],\n{json.dumps(rest)[1:]}\n".encode())


def _annotation(one: SegmentedObject) -> dict[str, object]:
    assert one.run_length is not None  # noqa: S101 - requested
    return {
        "segmentation": {"size": [one.run_length.height, one.run_length.width], "counts": one.run_length.counts},
        "area": one.area_px,
        "bbox": [one.box.left, one.box.top, one.box.width, one.box.height],
        "iscrowd": 0,
        "score": one.mean_probability,
    }
