"""Converts between Python values and the protobuf messages of segmentation, for both clients."""

from typing import TypedDict
from uuid import uuid4

import numpy as np

from medserve_client.channel import DEFAULT_MAX_MESSAGE_BYTES
from medserve_client.errors import InferenceError, from_status
from medserve_client.images import Images, to_images
from medserve_client.messages import image_warnings
from medserve_client.segmentation import results
from medserve_client.segmentation.run_length import RunLength
from medserve_proto.v1 import image_segmentation_pb2 as pb


class SegmentOptions(TypedDict, total=False):
    """Options of `segment` and `segment_stream`.

    Attributes:
        frame: frame index of each image, from 0; only DICOM files have more than one frame.
        pixel_spacing: distance between rows and between columns in mm, (row, column), for images that do not state it;
            a DICOM file that states another one is refused. Without it, sizes are in pixels.
        masks: whether and how the objects' pixels are returned; by default as run-lengths.
        probability_maps: also return each label's probability map.
        uncertainty_maps: also return the map of the members' disagreement; only for ensembles.
        contours: also return the outline of each object.
        overlay: also return the image with the outlines drawn over it.
        max_objects: maximum number of objects listed for each label, largest first; 0, the default, for the server's
            limit of 10,000. It affects neither counts nor areas.
    """

    frame: int
    pixel_spacing: tuple[float, float] | None
    masks: results.MaskFormat
    probability_maps: bool
    uncertainty_maps: bool
    contours: bool
    overlay: bool
    max_objects: int


def segment_request(
    images: Images,
    model: str,
    version: str,
    max_bytes: int = DEFAULT_MAX_MESSAGE_BYTES,
    *,
    frame: int = 0,
    pixel_spacing: tuple[float, float] | None = None,
    masks: results.MaskFormat = results.MaskFormat.RUN_LENGTH,
    probability_maps: bool = False,
    uncertainty_maps: bool = False,
    contours: bool = False,
    overlay: bool = False,
    max_objects: int = 0,
) -> pb.SegmentRequest:
    """Builds the request for one or more images; see `SegmentOptions`.

    Raises:
        OSError: a file cannot be read.
        TypeError: an image is not an ImageSource, or its array is not uint8.
        ValueError: an image cannot be sent unchanged, the spacing is not a pair, or a number is negative.
        ResourceExhaustedError: the images have more than `max_bytes` in total.
    """
    spacing = None if pixel_spacing is None else _spacing(pixel_spacing)
    return pb.SegmentRequest(
        model_name=model,
        model_version=version,
        images=[pb.ImageToSegment(image=image, pixel_spacing=spacing) for image in to_images(images, frame, max_bytes)],
        masks=pb.MaskFormat.ValueType(masks),
        probability_maps=probability_maps,
        uncertainty_maps=uncertainty_maps,
        contours=contours,
        overlay=overlay,
        max_objects=max_objects,
        request_id=uuid4().hex,
    )


def _spacing(given: tuple[float, float]) -> pb.PixelSpacing:
    try:
        row, column = given
    except (TypeError, ValueError):
        raise ValueError(
            f"pixel_spacing is {given!r}; expected the distances between rows and between columns in mm, "
            "e.g. (0.25, 0.25)"
        ) from None
    return pb.PixelSpacing(row_mm=row, column_mm=column)


def segmentation_response(reply: pb.SegmentResponse) -> results.SegmentationResponse:
    """Converts the response to a SegmentRequest."""
    return results.SegmentationResponse(
        reply.model_name, reply.model_version, tuple(_result(one) for one in reply.results), reply.request_id
    )


def segmentation_outcome(reply: pb.SegmentStreamResponse) -> results.SegmentationResponse | InferenceError:
    """Converts one response of SegmentStream."""
    return from_status(reply.error) if reply.HasField("error") else segmentation_response(reply.response)


def _result(one: pb.SegmentResult) -> results.SegmentationResult:
    spacing = one.pixel_spacing
    source = results.SpacingSource(spacing.source)
    return results.SegmentationResult(
        height=one.height,
        width=one.width,
        labels=tuple(_label(label, one.height, one.width) for label in one.labels),
        pixel_spacing=results.PixelSpacing(spacing.row_mm, spacing.column_mm, source)
        if one.HasField("pixel_spacing")
        else None,
        warnings=image_warnings(one.warnings),
        uncertainty=one.uncertainty if one.HasField("uncertainty") else None,
        novelty=one.novelty if one.HasField("novelty") else None,
        uncertainty_png=one.uncertainty_png,
        overlay_png=one.overlay_png,
        sop_instance_uid=one.sop_instance_uid,
        frames=one.frames,
        tiles=one.tiles,
    )


def _label(one: pb.LabelResult, height: int, width: int) -> results.LabelResult:
    return results.LabelResult(
        label=one.label,
        area_px=one.area_px,
        area_mm2=one.area_mm2 if one.HasField("area_mm2") else None,
        area_share=one.area_share,
        count=one.count,
        count_interval=_interval(one.count_interval) if one.HasField("count_interval") else None,
        objects=tuple(_object(entry, height, width) for entry in one.objects),
        measures=tuple(
            results.MeasureResult(
                entry.name,
                entry.unit,
                entry.value,
                _interval(entry.interval) if entry.HasField("interval") else None,
            )
            for entry in one.measures
        ),
        mask_png=one.mask_png,
        probability_png=one.probability_png,
    )


def _object(one: pb.SegmentedObject, height: int, width: int) -> results.SegmentedObject:
    return results.SegmentedObject(
        id=one.id,
        box=results.Box(one.box.left, one.box.top, one.box.width, one.box.height),
        centroid=(one.centroid_x, one.centroid_y),
        area_px=one.area_px,
        area=one.area,
        equivalent_diameter=one.equivalent_diameter,
        major_axis=one.major_axis,
        minor_axis=one.minor_axis,
        perimeter=one.perimeter,
        circularity=one.circularity,
        mean_probability=one.mean_probability,
        touches_border=one.touches_border,
        contour=np.array(one.contour, np.uint32).reshape(-1, 2) if one.contour else None,
        run_length=RunLength(one.run_length, height, width) if one.run_length else None,
    )


def _interval(one: pb.Interval) -> results.Interval:
    return results.Interval(one.low, one.high, one.coverage)
