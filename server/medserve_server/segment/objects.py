"""The objects of one label: found in its maps, measured and encoded."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from medserve_masks import ObjectRule, Objects, ellipse_circumference, measure_objects
from medserve_masks.contours import outline
from medserve_masks.run_length import encode
from medserve_proto.v1 import image_segmentation_pb2 as pb
from medserve_proto.v1.manifest_pb2 import SegmentedLabel

MAX_OBJECTS = 10_000
"""Maximum number of objects listed per label."""
AGREEMENT_COVERAGE = 0.95
"""Fraction of differences within the limits of agreement (Bland & Altman 1986)."""

Labels = NDArray[np.int32]


@dataclass(frozen=True, slots=True)
class Scale:
    """The sizes of an image's pixels, in millimeters or, if these are not known, in pixels."""

    unit: Literal["mm", "px"]
    spacing: tuple[float, float]
    """Distance between rows and between columns."""
    input_pixel: float
    """Square root of the area of a pixel of the graph's input, to which the image may be stretched."""


def rule_of(label: SegmentedLabel) -> ObjectRule:
    """Converts the rule of a label in a manifest."""
    return ObjectRule(
        threshold=label.threshold,
        marker_distance=label.marker_distance if label.HasField("marker_distance") else None,
        min_area=label.min_area_px,
        largest_only=label.largest_only,
        fill_holes=label.fill_holes,
    )


def describe(
    result: pb.LabelResult,
    request: pb.SegmentRequest,
    label: SegmentedLabel,
    labels: Labels,
    probabilities: NDArray[np.float32],
    scale: Scale,
) -> None:
    """Fills the result for a label with its objects and measures.

    Args:
        result: result to be filled.
        request: what is requested of each object.
        label: label in the manifest.
        labels: IDs of the objects, the largest first, [height, width].
        probabilities: probability of the label, [height, width].
        scale: sizes of the pixels.
    """
    result.count, result.area_px = int(labels.max(initial=0)), int(np.count_nonzero(labels))
    result.area_share = result.area_px / labels.size
    if scale.unit == "mm":
        result.area_mm2 = result.area_px * scale.spacing[0] * scale.spacing[1]
    if (interval := _count_interval(label, result.count)) is not None:
        result.count_interval.CopyFrom(interval)
    listed = min(request.max_objects or MAX_OBJECTS, MAX_OBJECTS)
    objects = measure_objects(labels, probabilities, scale.spacing, listed)
    _add_objects(result, labels, objects, request)
    if result.count:
        left, top, width, height = objects.boxes[0].tolist()
        largest = labels[top : top + height, left : left + width] == 1
        result.measures.extend(_measures(label, largest, scale))


def _add_objects(result: pb.LabelResult, labels: Labels, objects: Objects, request: pb.SegmentRequest) -> None:
    """Lists the measured objects with their contours and run-lengths, if these are requested."""
    columns = (
        objects.boxes,
        objects.centroids,
        objects.areas_px,
        objects.areas,
        objects.equivalent_diameters,
        objects.major_axes,
        objects.minor_axes,
        objects.perimeters,
        objects.circularities,
        objects.mean_probabilities,
        objects.touches_border,
    )
    rows = zip(*[column.tolist() for column in columns], strict=True)
    for index, (box, centroid, pixels, area, diameter, major, minor, perimeter, circularity, mean, border) in enumerate(
        rows, start=1
    ):
        left, top, width, height = box
        found = result.objects.add(
            id=index,
            box=pb.Box(left=left, top=top, width=width, height=height),
            centroid_x=centroid[0],
            centroid_y=centroid[1],
            area_px=pixels,
            area=area,
            equivalent_diameter=diameter,
            major_axis=major,
            minor_axis=minor,
            perimeter=perimeter,
            circularity=circularity,
            mean_probability=mean,
            touches_border=border,
        )
        if request.contours:
            found.contour.extend(outline(labels, index, objects.boxes[index - 1]).ravel().tolist())
        if request.masks == pb.MASK_FORMAT_RUN_LENGTH:
            found.run_length = encode(labels, index, objects.boxes[index - 1])


def _count_interval(label: SegmentedLabel, count: int) -> pb.Interval | None:
    """Returns the interval of the true count; None if the error of the counts is not known or there is one object."""
    if not label.HasField("count_error") or label.largest_only:
        return None
    error = label.count_error
    low, high = math.floor(error.low_ratio * count), math.ceil(error.high_ratio * count)
    return pb.Interval(low=low, high=high, coverage=error.coverage)


def _measures(label: SegmentedLabel, mask: NDArray[np.bool_], scale: Scale) -> Iterator[pb.MeasureResult]:
    """Yields the derived measures of an object; only in millimeters, the limits of agreement apply."""
    for measure in label.measures:
        value = ellipse_circumference(mask, scale.spacing) + measure.offset_px * scale.input_pixel
        result = pb.MeasureResult(name=measure.name, unit=scale.unit, value=value)
        if scale.unit == "mm":
            low, high = (value - measure.bias_mm + sign * measure.agreement_mm for sign in (-1, 1))
            result.interval.CopyFrom(pb.Interval(low=low, high=high, coverage=AGREEMENT_COVERAGE))
        yield result
