"""Segmentation of nuclei: Otsu's threshold, cross-validation on stained tissue, and a random split of fluorescence.

python -m benchmarks.nuclei [--data-dir FOLDER]

Stained tissue has few images, so every group of it is tested once, by a model that was trained on the others. The
random split is optimistic, since images of the same experiment are in training and test; it is that of StarDist's
example notebook. It takes about an hour on two cores.
"""

import argparse
import json
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from lightning_fabric import Fabric
from numpy.typing import NDArray
from rich.console import Console
from scipy import ndimage
from skimage.filters import threshold_otsu

from medserve_training.data.masks.image import MaskedImage
from medserve_training.data.masks.load import load_masks
from medserve_training.export.inference import open_session
from medserve_training.export.manifest import read_manifest
from medserve_training.export.segmentation.maps import predict_splits
from medserve_training.export.segmentation.measure import measure_segmentation
from medserve_training.metrics.segmentation import object_figures, summarize
from medserve_training.recipes.recipe import load_recipe
from medserve_training.recipes.segmentation_settings import SegmentationTask
from medserve_training.run_paths import RunPaths
from medserve_training.training.fit import fit

RECIPE = "cell-nuclei"
SMALLEST_OBJECT = 20
CYTOLOGY = "stained-1024x1024-17"
# Test groups of each fold; those of the next fold are its validation groups.
FOLDS = (
    ("stained-320x256-14",),
    ("stained-320x256-12", "stained-320x256-17"),
    ("stained-320x256-15", "stained-320x256-9"),
    ("stained-320x256-11", "stained-320x256-10", "stained-320x256-16"),
)
RANDOM_SPLIT = (
    "training.epochs=8",
    "split.by=image",
    "split.validation_groups=[]",
    "split.test_groups=[]",
    "split.validation=0.1",
    "split.test=0.15",
)
Found = tuple[MaskedImage, NDArray[np.int32]]
RESULTS = Path(__file__).parent / "nuclei.json"


def main() -> None:
    """Measures, prints the figures, and writes them to nuclei.json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data-dir", type=Path, default=Path("data"), help="folder of nuclei.zip (default: data)")
    data_dir = parser.parse_args().data_dir
    console = Console()
    found = {f"Otsu, test split, {kind}": metrics for kind, metrics in baseline(data_dir).items()}
    found["Otsu, all stained tissue"] = figures_of(
        [(image, otsu_objects(image.pixels)) for image in stained_tissue(data_dir)]
    )
    found["cross-validation, stained tissue"] = figures_of(list(cross_validate(data_dir, console)))
    found["random split, fluorescence"] = figures_of(
        trained("nuclei:nuclei.zip,fluorescence", RANDOM_SPLIT, data_dir, console)
    )
    for name, metrics in found.items():
        console.print(name, {key: round(value, 3) for key, value in metrics.items()})
    RESULTS.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


def baseline(data_dir: Path) -> dict[str, dict[str, float]]:
    """Returns the figures of Otsu's threshold on the recipe's test split, by kind of image."""
    recipe = load_recipe(RECIPE)
    assert isinstance(recipe.task, SegmentationTask)  # noqa: S101
    images = load_masks(recipe, recipe.task, data_dir).test
    kinds = sorted({image.kind for image in images})
    return {
        kind: figures_of([(image, otsu_objects(image.pixels)) for image in images if image.kind == kind])
        for kind in kinds
    }


def otsu_objects(pixels: NDArray[np.uint8]) -> NDArray[np.int32]:
    """Returns the connected areas above Otsu's threshold (1979), or below it in bright images, int32 [h, w]."""
    gray = pixels.mean(axis=2)
    if gray.mean() > 127:
        gray = 255 - gray
    labels, count = ndimage.label(gray > threshold_otsu(gray))  # type: ignore[no-untyped-call]
    sizes = np.bincount(labels.ravel(), minlength=count + 1)
    sizes[0] = 0
    kept = np.where(sizes >= SMALLEST_OBJECT, np.cumsum(sizes >= SMALLEST_OBJECT), 0)
    objects: NDArray[np.int32] = kept[labels].astype(np.int32)
    return objects


def stained_tissue(data_dir: Path) -> list[MaskedImage]:
    """Returns all images of stained tissue."""
    recipe = load_recipe(RECIPE)
    assert isinstance(recipe.task, SegmentationTask)  # noqa: S101
    data = load_masks(recipe, recipe.task, data_dir)
    images = (*data.train, *data.validation, *data.test)
    return [image for image in images if image.kind == "stained tissue"]


def cross_validate(data_dir: Path, console: Console) -> Iterator[Found]:
    """Yields each image of stained tissue with the objects found by a model that was trained without its group."""
    for index, groups in enumerate(FOLDS):
        validation = FOLDS[(index + 1) % len(FOLDS)]
        # The images of cytology differ too much to be of use.
        split = [f"split.test_groups={[*groups, CYTOLOGY]}", f"split.validation_groups={list(validation)}"]
        found = trained("nuclei:nuclei.zip,stained", ["training.epochs=4", *split], data_dir, console)
        yield from ((image, labels) for image, labels in found if image.kind == "stained tissue")
        console.print(f"fold {index + 1} of {len(FOLDS)} is done")


def trained(spec: str, overrides: Sequence[str], data_dir: Path, console: Console) -> list[Found]:
    """Trains a single member for fewer steps than in the recipe, and returns the images of its test split."""
    recipe = load_recipe(RECIPE, ["training.members=1", *overrides], spec)
    assert isinstance(recipe.task, SegmentationTask)  # noqa: S101
    with tempfile.TemporaryDirectory() as folder:
        model = Path(folder) / "model.onnx"
        fit(recipe, RunPaths(data_dir, model, Path(folder)), Fabric(accelerator="cpu", devices=1), console)
        data = load_masks(recipe, recipe.task, data_dir)
        manifest = read_manifest(model)
        maps = predict_splits(open_session(model), data, manifest.image_segmentation.input, ["validation", "test"])
        segmented = measure_segmentation(manifest, maps, data, recipe.task)
    return [(one.image, one.labels[0]) for one in segmented["test"]]


def figures_of(found: Sequence[Found]) -> dict[str, float]:
    """Returns the metrics of images with the objects found in them, by name."""
    figures = [object_figures(image.labels[0], labels) for image, labels in found]
    return {metric.name: metric.value for metric in summarize(figures, [image.group for image, _ in found])}


if __name__ == "__main__":
    main()
