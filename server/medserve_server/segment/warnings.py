"""Warnings of a segmentation result."""

from medserve_images import FileInfo, ImageWarning
from medserve_proto.v1.image_segmentation_pb2 import PixelSpacing, SegmentResult
from medserve_server.segment.plan import Plan
from medserve_server.segment.stretch import Stretch


def add_warnings(result: SegmentResult, info: FileInfo, plan: Plan, spacing: PixelSpacing | None) -> None:
    """Adds the warnings of the image's file, of how it was segmented, and about its pixel spacing.

    Args:
        result: the result, whose height and width are set.
        info: what the file states.
        plan: how the image was segmented.
        spacing: the pixel spacing; None if it is not known.
    """
    found = list(info.warnings)
    height, width = plan.size
    if isinstance(plan, Stretch) and plan.size != (result.height, result.width):
        message = f"resized from {result.width} x {result.height} to {width} x {height}"
        found.append(ImageWarning("RESIZED", message))
    if len(plan) > 1:
        found.append(ImageWarning("TILED", f"segmented in {len(plan)} overlapping tiles of {width} x {height}"))
    if spacing is None:
        message = "states no pixel spacing, and neither does the request: sizes are in pixels"
        found.append(ImageWarning("SPACING_UNKNOWN", message))
    if info.spacing is not None and info.spacing.at_detector:
        message = "its pixel spacing is that at the detector: objects are smaller than measured"
        found.append(ImageWarning("MAGNIFIED", message))
    for warning in found:
        result.warnings.add(kind=f"KIND_{warning.kind}", message=warning.message)
