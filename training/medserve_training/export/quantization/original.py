"""The model to be quantized, with the images that calibrate and measure it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
import onnx
import torch
from numpy.typing import NDArray

from medserve_proto.v1 import manifest_pb2 as pb
from medserve_training.data.data_checks import check_images
from medserve_training.data.image_data import load_images
from medserve_training.data.masks.crops import RandomCrops
from medserve_training.data.masks.image import MaskedImages
from medserve_training.data.masks.load import load_masks
from medserve_training.data.splits import Images, Splits, fingerprint
from medserve_training.errors import UserError
from medserve_training.export.inference import open_session
from medserve_training.export.manifest import read_manifest
from medserve_training.export.measure_images import measure_images
from medserve_training.export.origin import Source, recipe_of, verify_training_data
from medserve_training.export.reference import made_up_images
from medserve_training.export.segmentation.describe import image_fingerprint
from medserve_training.export.segmentation.maps import predict_splits
from medserve_training.export.segmentation.measure import measure_segmentation
from medserve_training.recipes.recipe import ImageTask
from medserve_training.recipes.segmentation_settings import Crops, SegmentationTask

_MADE_UP_SETS = 8
# Number of synthetic images for calibration.
MADE_UP = 8 * _MADE_UP_SETS

Pixels = NDArray[np.uint8]
Probabilities = Sequence[NDArray[np.floating]]


@dataclass(frozen=True)
class Original:
    """The model to be converted.

    Attributes:
        content: Its file.
        graph: The same, parsed.
        manifest: Its manifest.
        pictures: Maps a number of training images and a seed to inputs for calibration.
        measure: Maps the file of a model to the original's manifest with the figures of that model on validation, and
            its probabilities there, an array for each image or for all.
    """

    content: bytes
    graph: onnx.ModelProto
    manifest: pb.Manifest
    pictures: Callable[[int, int], Pixels]
    measure: Callable[[bytes], tuple[pb.Manifest, Probabilities]]


def load_original(source: Source) -> Original:
    """Reads a model and its data.

    Args:
        source: The model file and its data.

    Raises:
        UserError: A file is missing or corrupt, the data differs, or quantization does not benefit the model.
    """
    path = source.path
    manifest = read_manifest(path)
    if manifest.HasField("quantization"):
        raise UserError(f"{path} is already quantized; start from the file from which it was made")
    if manifest.HasField("patient_risk"):
        raise UserError(
            f"{path} is a patient-risk model: its layers are so small that integers make it slower for one patient at "
            "a time; serve it unchanged",
        )
    if not manifest.reference:
        raise UserError(f"{path} has no reference rows in its manifest; fit the recipe again with this version")
    recipe = recipe_of(source, manifest)
    content = path.read_bytes()
    graph = onnx.load_from_string(content)
    match recipe.task:
        case ImageTask() as task if manifest.HasField("image_classification"):
            images = load_images(recipe, task, source.data_dir)
            verify_training_data(manifest, fingerprint(images.train))
            check_images(images, recipe, task)
            return _classifier(content, graph, manifest, images)
        case SegmentationTask() as task if manifest.HasField("image_segmentation"):
            masked = load_masks(recipe, task, source.data_dir)
            verify_training_data(manifest, image_fingerprint(masked.train))
            crops = cast("Crops", recipe.crops)  # the recipe has checked it against the task
            return _segmenter(content, graph, manifest, task, crops, masked)
        case task:
            kind = str(manifest.WhichOneof("task")).replace("_", "-")
            raise UserError(
                f"{path} is a model for the task {kind!r}, but the recipe {recipe.name} has the task {task.kind!r}; "
                "correct --recipe"
            )


def _classifier(content: bytes, graph: onnx.ModelProto, manifest: pb.Manifest, images: Splits[Images]) -> Original:
    def pictures(number: int, seed: int) -> Pixels:
        return calibration_pictures(images.train.pixels, number, seed)

    def measure(model: bytes) -> tuple[pb.Manifest, Probabilities]:
        fresh = _copied(manifest)
        output = measure_images(fresh, open_session(model), images, ["validation"])
        return fresh, [output["validation"]]

    return Original(content, graph, manifest, pictures, measure)


def _segmenter(
    content: bytes,
    graph: onnx.ModelProto,
    manifest: pb.Manifest,
    task: SegmentationTask,
    crops: Crops,
    images: Splits[MaskedImages],
) -> Original:
    def pictures(number: int, seed: int) -> Pixels:
        return calibration_pictures(training_crops(images.train, crops, number, seed), number, seed)

    def measure(model: bytes) -> tuple[pb.Manifest, Probabilities]:
        fresh = _copied(manifest)
        maps = predict_splits(open_session(model), images, fresh.image_segmentation.input, ["validation"])
        measure_segmentation(fresh, maps, images, task)
        return fresh, [one["probabilities"] for one in maps["validation"]]

    return Original(content, graph, manifest, pictures, measure)


def _copied(manifest: pb.Manifest) -> pb.Manifest:
    fresh = pb.Manifest()
    fresh.CopyFrom(manifest)
    return fresh


def training_crops(images: MaskedImages, crops: Crops, number: int, seed: int) -> Pixels:
    """Returns random crops of training images without augmentation, uint8 [number, height, width, channels]."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        rows = RandomCrops(images, Crops(crops.height, crops.width, number), signed=False)
        return np.stack([rows[index][0].numpy().astype(np.uint8) for index in range(number)])


def calibration_pictures(train: Pixels, rows: int, seed: int) -> Pixels:
    """Returns training images and synthetic ones of a wider range, without which noise would saturate the integers."""
    random = np.random.default_rng([seed, 1])
    chosen = random.choice(len(train), min(rows, len(train)), replace=False)
    height, width, channels = train.shape[1:]
    made_up = [made_up_images(height, width, channels, random) for _ in range(_MADE_UP_SETS)]
    return np.concatenate([train[np.sort(chosen)], *made_up])
