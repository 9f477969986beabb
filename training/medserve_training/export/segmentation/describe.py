"""The manifest of a segmentation model, from its recipe and data."""

from medserve_masks import ObjectRule
from medserve_proto.v1 import manifest_pb2 as pb
from medserve_training.data.masks.image import MaskedImages
from medserve_training.data.splits import fingerprint
from medserve_training.export.manifest import COLORS, RESAMPLINGS, base_manifest
from medserve_training.recipes.recipe import Recipe
from medserve_training.recipes.segmentation_settings import SegmentationTask

NOVELTY = "mean uncertainty of the pixels of possible objects, 1 - |2 p - 1| where p is at least 0.3"


def segmentation_manifest(recipe: Recipe, task: SegmentationTask, train: MaskedImages, stride: int) -> pb.Manifest:
    """Builds the manifest of a segmentation model, without thresholds and evaluations.

    Args:
        recipe: The recipe of the model.
        task: Its task.
        train: The training split.
        stride: The number of which height and width of an input must be multiples.
    """
    manifest = base_manifest(recipe, image_fingerprint(train))
    described = manifest.image_segmentation
    described.input.color_space = COLORS[task.color]
    described.input.stride = stride
    if task.fixed is not None:
        described.input.fixed.height, described.input.fixed.width = task.fixed.height, task.fixed.width
        described.input.fixed.resampling = RESAMPLINGS[task.fixed.resampling]
    if task.tiling is not None:
        described.input.tiling.max_side, described.input.tiling.margin = task.tiling.max_side, task.tiling.margin
    for name in task.labels:
        label = described.labels.add(name=name, threshold=0.5)
        label.largest_only = label.fill_holes = task.objects == "largest"
    described.members = recipe.training.members
    described.novelty.method = NOVELTY
    return manifest


def image_fingerprint(images: MaskedImages) -> str:
    """Returns the SHA-256 of pixels and masks of all images, in order."""
    return fingerprint([array for image in images for array in (image.pixels, image.labels)])


def object_rule(label: pb.SegmentedLabel) -> ObjectRule:
    """Returns how the objects of a label are found."""
    return ObjectRule(
        threshold=label.threshold,
        marker_distance=label.marker_distance if label.HasField("marker_distance") else None,
        min_area=label.min_area_px,
        largest_only=label.largest_only,
        fill_holes=label.fill_holes,
    )
