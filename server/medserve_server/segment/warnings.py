"""Warnings of a segmentation result about the image."""

from medserve_images import FileInfo, ImageWarning
from medserve_proto.v1.image_segmentation_pb2 import PixelSpacing
from medserve_server.segment.plan import Plan
from medserve_server.segment.stretch import Stretch


def image_warnings(
    size: tuple[int, int], info: FileInfo, plan: Plan, spacing: PixelSpacing | None
) -> list[ImageWarning]:
    """Returns the warnings of the image's file, of how it was segmented, and about its pixel spacing.

    Args:
        size: height and width of the image.
        info: what the file states.
        plan: how the image was segmented.
        spacing: the pixel spacing; None if it is not known.
    """
    found = list(info.warnings)
    height, width = plan.size
    if isinstance(plan, Stretch) and plan.size != size:
        found.append(ImageWarning("RESIZED", f"resized from {size[1]} x {size[0]} to {width} x {height}"))
    if len(plan) > 1:
        found.append(ImageWarning("TILED", f"segmented in {len(plan)} overlapping tiles of {width} x {height}"))
    if spacing is None:
        message = "states no pixel spacing, and neither does the request: sizes are in pixels"
        found.append(ImageWarning("SPACING_UNKNOWN", message))
    if info.spacing is not None and info.spacing.at_detector:
        message = "its pixel spacing is that at the detector: objects are smaller than measured"
        found.append(ImageWarning("MAGNIFIED", message))
    return found
