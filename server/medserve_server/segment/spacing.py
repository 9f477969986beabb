"""The distance between the pixels of an image: from its file, else from the request."""

import math

from medserve_images import FileInfo
from medserve_images.spacing import MAX_SPACING, is_plausible
from medserve_proto.v1.image_segmentation_pb2 import ImageToSegment, PixelSpacing
from medserve_server.errors import FieldViolation

TOLERANCE = 1e-3
"""Relative difference up to which a request agrees with a file, whose decimal numbers are rounded."""


def spacing_problems(image: ImageToSegment, field: str) -> list[FieldViolation]:
    """Returns the violations of the pixel spacing in a request, whose image has this field name."""
    if not image.HasField("pixel_spacing"):
        return []
    given = image.pixel_spacing
    expected = f"expected a distance above 0 and up to {MAX_SPACING:g} mm"
    return [
        FieldViolation(f"{field}.pixel_spacing.{name}", f"is {value:g}, {expected}; both are needed")
        for name, value in (("row_mm", given.row_mm), ("column_mm", given.column_mm))
        if not is_plausible(value)
    ]


def conflicts(image: ImageToSegment, info: FileInfo, field: str) -> list[FieldViolation]:
    """Returns the violations of a request that states another pixel spacing than the file."""
    if not image.HasField("pixel_spacing") or info.spacing is None:
        return []
    given, stated = image.pixel_spacing, info.spacing
    return [
        FieldViolation(f"{field}.pixel_spacing.{name}", f"is {value:g}, but the file states {other:g} mm; leave it out")
        for name, value, other in (
            ("row_mm", given.row_mm, stated.row),
            ("column_mm", given.column_mm, stated.column),
        )
        if not math.isclose(value, other, rel_tol=TOLERANCE)
    ]


def pixel_spacing(image: ImageToSegment, info: FileInfo) -> PixelSpacing | None:
    """Returns the pixel spacing of an image; None if neither its file nor the request states it."""
    if (stated := info.spacing) is not None:
        return PixelSpacing(
            row_mm=stated.row, column_mm=stated.column, source=PixelSpacing.Source.Value(f"SOURCE_{stated.source}")
        )
    if image.HasField("pixel_spacing"):
        given = image.pixel_spacing
        return PixelSpacing(row_mm=given.row_mm, column_mm=given.column_mm, source=PixelSpacing.SOURCE_REQUEST)
    return None
