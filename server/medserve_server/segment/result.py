"""The result for one image, from its maps."""

import numpy as np

from medserve_masks import label_objects
from medserve_proto.v1 import image_segmentation_pb2 as pb
from medserve_proto.v1.image_classification_pb2 import ImageWarning
from medserve_proto.v1.manifest_pb2 import ImageSegmentationTask
from medserve_server.explain.confidence import unfamiliar
from medserve_server.segment.image import Maps, SegmentedImage
from medserve_server.segment.objects import describe, rule_of
from medserve_server.segment.pictures import Overlay, map_png, mask_png, preview_png
from medserve_server.segment.warnings import image_warnings

NEAR_OBJECTS = 0.1
"""Pixels with at least this fraction of the threshold count for the uncertainty of an image."""
MAX_DEVIATION = 0.5
"""Largest possible standard deviation of probabilities."""


def add_result(
    result: pb.SegmentResult, request: pb.SegmentRequest, task: ImageSegmentationTask, image: SegmentedImage
) -> int:
    """Fills the result for an image from its maps, and frees these.

    Returns:
        The size of the result in bytes.
    """
    height, width, _ = image.pixels.shape
    result.height, result.width = height, width
    result.frames, result.tiles = image.info.frames, len(image.plan)
    if image.info.sop_instance_uid:
        result.sop_instance_uid = image.info.sop_instance_uid
    if image.spacing is not None:
        result.pixel_spacing.CopyFrom(image.spacing)
    for warning in image_warnings((height, width), image.info, image.plan, image.spacing):
        result.warnings.add(kind=f"KIND_{warning.kind}", message=warning.message)
    if image.novelty is not None:
        result.novelty = image.novelty
        if message := unfamiliar(image.novelty, task.novelty, "images"):
            result.warnings.add(kind=ImageWarning.KIND_UNFAMILIAR, message=message)
    if "disagreement" in image.maps:
        _add_uncertainty(result, request, task, image.maps)
    if request.preview:
        result.preview_png = preview_png(image.pixels)
    overlay = Overlay(image.pixels) if request.overlay else None
    for index in range(len(task.labels)):
        _add_label(result, request, task, image, index, overlay)
    image.maps.clear()
    if overlay is not None:
        result.overlay_png = overlay.png()
    return result.ByteSize()


def _add_uncertainty(
    result: pb.SegmentResult, request: pb.SegmentRequest, task: ImageSegmentationTask, maps: Maps
) -> None:
    """Adds the mean disagreement of the members near the objects, and its map, and frees the disagreement."""
    disagreement = maps.pop("disagreement")
    total, pixels = 0.0, 0
    for label, probabilities, deviations in zip(task.labels, maps["probabilities"], disagreement, strict=True):
        near = probabilities >= NEAR_OBJECTS * label.threshold
        total += float(deviations.sum(where=near, dtype=np.float64))
        pixels += int(np.count_nonzero(near))
    result.uncertainty = total / pixels if pixels else 0.0
    if request.uncertainty_maps:
        result.uncertainty_png = map_png(disagreement.max(axis=0), MAX_DEVIATION)


def _add_label(
    result: pb.SegmentResult,
    request: pb.SegmentRequest,
    task: ImageSegmentationTask,
    image: SegmentedImage,
    index: int,
    overlay: Overlay | None,
) -> None:
    """Adds the objects of a label and the pictures of it that are requested."""
    label, probabilities = task.labels[index], image.maps["probabilities"][index]
    distance = image.maps["distance"][index] if label.HasField("marker_distance") else None
    labels = label_objects(probabilities, distance, rule_of(label))
    part = result.labels.add(label=label.name)
    describe(part, request, label, labels, probabilities, image.scale)
    if request.masks == pb.MASK_FORMAT_PNG:
        part.mask_png = mask_png(labels)
    if request.probability_maps:
        part.probability_png = map_png(probabilities, 1.0)
    if overlay is not None:
        overlay.draw(labels, index)
