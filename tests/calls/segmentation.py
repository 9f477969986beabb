"""Segments arrays and files, and reads the pictures in the results."""

import io
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from medserve_proto.v1 import image_classification_pb2 as image_pb
from medserve_proto.v1 import image_segmentation_pb2 as pb
from medserve_proto.v1.image_segmentation_pb2_grpc import ImageSegmentationStub
from waiting import PATIENCE

Gray = NDArray[np.uint8]


def file_of(pixels: Gray) -> bytes:
    """Returns a PNG file."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def to_segment(image: Gray | bytes, row_mm: float | None = None, column_mm: float | None = None) -> pb.ImageToSegment:
    """Wraps an array or a file, with the pixel spacing if it is given."""
    encoded = image if isinstance(image, bytes) else file_of(image)
    wrapped = pb.ImageToSegment(image=image_pb.Image(encoded=encoded))
    if row_mm is not None or column_mm is not None:
        wrapped.pixel_spacing.CopyFrom(pb.PixelSpacing(row_mm=row_mm or 0, column_mm=column_mm or 0))
    return wrapped


def segment(
    stub: ImageSegmentationStub, model: str, *images: pb.ImageToSegment | Gray | bytes, **options: object
) -> list[pb.SegmentResult]:
    """Segments images and returns their results."""
    wrapped = [image if isinstance(image, pb.ImageToSegment) else to_segment(image) for image in images]
    request = pb.SegmentRequest(model_name=model, images=wrapped, **options)  # type: ignore[arg-type]
    return list(stub.Segment(request, timeout=PATIENCE).results)


def picture(data: bytes) -> NDArray[Any]:
    """Returns the pixels of a PNG file."""
    return np.asarray(Image.open(io.BytesIO(data)))


def kinds(result: pb.SegmentResult) -> set[str]:
    """Returns the kinds of the warnings of a result."""
    return {image_pb.ImageWarning.Kind.Name(warning.kind).removeprefix("KIND_") for warning in result.warnings}
