"""Reads the images of requests as one model takes them."""

import numpy as np

from medserve_images import ImageLimits, ImageReader, ImageRefused, ImageWarning, Pixels, Target
from medserve_proto.v1 import manifest_pb2 as manifest
from medserve_server.errors import InvalidInput


def target_of(image: manifest.ImageInput) -> Target:
    """What a manifest says about the images that its model takes."""
    return Target(
        height=image.height,
        width=image.width,
        color="rgb" if image.color_space == manifest.COLOR_SPACE_RGB else "gray",
        crop="center" if image.crop == manifest.CROP_CENTER else "none",
        resampling="bicubic" if image.resampling == manifest.RESAMPLING_BICUBIC else "bilinear",
    )


class RequestImages:
    """Reads the images of requests for one model.

    Args:
        target: the model's input, from its manifest.
        limits: what an encoded image may cost.
    """

    def __init__(self, target: manifest.ImageInput, limits: ImageLimits) -> None:
        self._reader = ImageReader(target_of(target), limits)
        self.shape = (target.height, target.width, self._reader.target.channels)
        """Of an image: height, width, channels."""

    def from_raw(self, pixels: bytes, shape: tuple[int, ...], field: str) -> Pixels:
        """Views raw bytes as uint8 [height, width, channels]; nothing is fitted.

        Raises:
            InvalidInput: the shape is not the model's, or the bytes are not as many as it says.
        """
        if shape != self.shape and not (shape == self.shape[:2] and self.shape[2] == 1):
            raise InvalidInput.of(f"{field}.shape", f"is {list(shape)}, expected {list(self.shape)}")
        size = self.shape[0] * self.shape[1] * self.shape[2]
        if len(pixels) != size:
            raise InvalidInput.of(f"{field}.pixels", f"has {len(pixels)} bytes, expected {size} for {list(shape)}")
        return np.frombuffer(pixels, np.uint8).reshape(self.shape)

    def from_encoded(self, data: bytes, field: str, frame: int = 0) -> tuple[Pixels, list[ImageWarning]]:
        """Decodes a PNG, JPEG, TIFF or DICOM file to uint8 [height, width, channels] and says what it changed.

        Args:
            data: the file.
            field: of the request, e.g. `images[3]`.
            frame: of a DICOM file; 0, which is what a request without one says: the first, with a warning where there
                are more.

        Raises:
            InvalidInput: the file is broken, of another format, too large, or of a kind without one clear reading.
        """
        try:
            return self._reader.read(data, frame or None)
        except ImageRefused as error:
            raise InvalidInput.of(f"{field}.{error.part}", error.reason, error.limit) from error

    def sop_instance_uid(self, data: bytes, field: str) -> str:
        """Returns the SOP Instance UID of a file that was read; "" where it is no DICOM file, or has none.

        Raises:
            InvalidInput: the file is broken.
        """
        try:
            return self._reader.sop_instance_uid(data)
        except ImageRefused as error:
            raise InvalidInput.of(f"{field}.{error.part}", error.reason, error.limit) from error
