"""Decodes the images of requests to the input format of a model."""

import math
from collections.abc import Iterable, Iterator

import numpy as np

from medserve_images import FileInfo, ImageLimits, ImageReader, ImageRefused, Pixels, Target
from medserve_proto.v1 import manifest_pb2 as manifest
from medserve_proto.v1.image_classification_pb2 import Image
from medserve_server.errors import FieldViolation, InvalidInput, Limit


def target_of(image: manifest.ImageInput) -> Target:
    """Converts a manifest's image input to an `ImageReader` target."""
    return Target(
        height=image.height,
        width=image.width,
        color="rgb" if image.color_space == manifest.COLOR_SPACE_RGB else "gray",
        crop="center" if image.crop == manifest.CROP_CENTER else "none",
        resampling="bicubic" if image.resampling == manifest.RESAMPLING_BICUBIC else "bilinear",
    )


def free_target_of(image: manifest.SegmentationInput) -> Target:
    """Returns an `ImageReader` target for images of any size in the colors of a segmentation model."""
    return Target(None, None, "rgb" if image.color_space == manifest.COLOR_SPACE_RGB else "gray")


class RequestImages:
    """Decodes the images of requests for one model.

    Args:
        target: the format of the images.
        limits: limits for images.
    """

    def __init__(self, target: Target, limits: ImageLimits) -> None:
        self._reader = ImageReader(target, limits)
        self.channels = target.channels
        self._shape = (target.height, target.width, target.channels)
        self.max_pixels = limits.max_pixels

    def from_raw(self, pixels: bytes, shape: tuple[int, ...], field: str) -> Pixels:
        """Returns raw bytes as a uint8 array [height, width, channels], without cropping or resizing.

        Raises:
            InvalidInput: the shape is not that of the images, or the number of bytes does not match it.
        """
        full = (*shape, 1) if len(shape) == 2 else shape
        matches = [given and given == (side or given) for given, side in zip(full, self._shape, strict=False)]
        if len(full) != 3 or not all(matches):
            expected = [side or name for side, name in zip(self._shape, ("height", "width", ""), strict=True)]
            raise InvalidInput.of(f"{field}.shape", f"is {list(shape)}, expected [{', '.join(map(str, expected))}]")
        if full[0] * full[1] > self.max_pixels:
            text = f"is {list(shape)}, at most {self.max_pixels / 1e6:g} megapixels are accepted"
            raise InvalidInput.of(f"{field}.shape", text, "pixels")
        if len(pixels) != (size := math.prod(full)):
            raise InvalidInput.of(f"{field}.pixels", f"has {len(pixels)} bytes, expected {size} for {list(shape)}")
        return np.frombuffer(pixels, np.uint8).reshape(full)

    def from_encoded(self, data: bytes, field: str, frame: int = 0) -> tuple[Pixels, FileInfo]:
        """Decodes a PNG, JPEG, TIFF or DICOM file to uint8 [height, width, channels].

        Args:
            data: contents of the file.
            field: request field of the image, e.g. `images[3]`, for the error.
            frame: frame of a DICOM file, from 0; 0, which is also the value if the field is not set, reads the first
                frame, with a warning if there are more.

        Raises:
            InvalidInput: the file is corrupt, of an unsupported format, too large, or ambiguous.
        """
        try:
            return self._reader.decode(data, frame or None)
        except ImageRefused as error:
            raise InvalidInput.of(f"{field}.{error.part}", error.reason, error.limit) from error

    def read(self, images: Iterable[tuple[str, Image]]) -> Iterator[tuple[int, Pixels, FileInfo]]:
        """Yields the index of each valid image, its pixels, uint8 [height, width, channels], and what its file states.

        Args:
            images: the field of each image, for the errors, and the image.

        Raises:
            InvalidInput: after the last image, if any of them is invalid; it lists all of those.
        """
        violations: list[FieldViolation] = []
        limit: Limit | None = None
        for index, (field, image) in enumerate(images):
            try:
                pixels, info = self._read(field, image)
            except InvalidInput as error:
                violations += error.violations
                limit = limit or error.limit
            else:
                yield index, pixels, info
        if violations:
            raise InvalidInput(violations, limit)

    def _read(self, field: str, image: Image) -> tuple[Pixels, FileInfo]:
        match image.WhichOneof("source"):
            case "encoded":
                return self.from_encoded(image.encoded, field, image.frame)
            case "raw" if image.frame:
                text = f"is {image.frame}, but only DICOM files can have several frames"
                raise InvalidInput.of(f"{field}.frame", text)
            case "raw":
                return self.from_raw(image.raw.pixels, tuple(image.raw.shape), f"{field}.raw"), FileInfo()
            case _:
                raise InvalidInput.of(field, "is empty; set encoded or raw")
