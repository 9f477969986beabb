"""Reads and validates the images of a request."""

from medserve_proto.v1.image_segmentation_pb2 import SegmentRequest
from medserve_proto.v1.manifest_pb2 import ImageSegmentationTask
from medserve_server.errors import FieldViolation, InvalidInput
from medserve_server.inputs.images import RequestImages
from medserve_server.segment.image import SegmentedImage
from medserve_server.segment.spacing import conflicts, pixel_spacing, spacing_problems

MAX_SIDE = 2**16 - 1
"""Maximum height and width of an image, as in JPEG and DICOM: a longer strip would have many almost empty tiles."""


def read_request(request: SegmentRequest, task: ImageSegmentationTask, reader: RequestImages) -> list[SegmentedImage]:
    """Decodes the images of a request.

    Raises:
        InvalidInput: an image or a pixel spacing is invalid, or the images have too many pixels in total.
    """
    fields = [f"images[{index}]" for index in range(len(request.images))]
    violations: list[FieldViolation] = []
    for field, image in zip(fields, request.images, strict=True):
        violations += spacing_problems(image, field)
    if violations:
        raise InvalidInput(violations)
    found: list[SegmentedImage] = []
    pixels = 0
    named = [(f"{field}.image", image.image) for field, image in zip(fields, request.images, strict=True)]
    for index, array, info in reader.read(named):
        image = request.images[index]
        if max(array.shape) > MAX_SIDE:
            text = f"is {array.shape[1]} x {array.shape[0]}, at most {MAX_SIDE} pixels per side are accepted"
            raise InvalidInput.of(f"{fields[index]}.image", text, "pixels")
        pixels += array.shape[0] * array.shape[1]
        if pixels > reader.max_pixels:
            text = f"have more than {reader.max_pixels / 1e6:g} megapixels in total; send fewer images per request"
            raise InvalidInput.of("images", text, "pixels")
        violations += conflicts(image, info, fields[index])
        found.append(SegmentedImage(array, info, pixel_spacing(image, info), task))
    if violations:
        raise InvalidInput(violations)
    return found
