"""Decodes the images of requests to the input format of a model."""

import numpy as np

from medserve_images import FileInfo, ImageLimits, ImageReader, ImageRefused, Pixels, Target
from medserve_proto.v1 import manifest_pb2 as manifest
from medserve_server.errors import InvalidInput


def target_of(image: manifest.ImageInput) -> Target:
    """Converts a manifest's image input to an `ImageReader` target."""
    return Target(
        height=image.height,
        width=image.width,
        color="rgb" if image.color_space == manifest.COLOR_SPACE_RGB else "gray",
        crop="center" if image.crop == manifest.CROP_CENTER else "none",
        resampling="bicubic" if image.resampling == manifest.RESAMPLING_BICUBIC else "bilinear",
    )


class RequestImages:
    """Decodes the images of requests for one model.

    Args:
        target: the model's input, from its manifest.
        limits: limits for encoded images.
    """

    def __init__(self, target: manifest.ImageInput, limits: ImageLimits) -> None:
        self._reader = ImageReader(target_of(target), limits)
        self.shape = (target.height, target.width, self._reader.target.channels)
        """Height, width and channels of an image."""

    def from_raw(self, pixels: bytes, shape: tuple[int, ...], field: str) -> Pixels:
        """Returns raw bytes as a uint8 array [height, width, channels], without cropping or resizing.

        Raises:
            InvalidInput: the shape is not that of the model's input, or the number of bytes does not match it.
        """
        if shape != self.shape and not (shape == self.shape[:2] and self.shape[2] == 1):
            raise InvalidInput.of(f"{field}.shape", f"is {list(shape)}, expected {list(self.shape)}")
        size = self.shape[0] * self.shape[1] * self.shape[2]
        if len(pixels) != size:
            raise InvalidInput.of(f"{field}.pixels", f"has {len(pixels)} bytes, expected {size} for {list(shape)}")
        return np.frombuffer(pixels, np.uint8).reshape(self.shape)

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
