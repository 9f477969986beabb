"""Decodes an image file and converts it to the input format of a model."""

import logging
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from medserve_images.errors import ImageRefused
from medserve_images.raster.reader import decode_raster
from medserve_images.spacing import Spacing
from medserve_images.target import ImageLimits, Target
from medserve_images.warning import ImageWarning

_RESAMPLING = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}
_MODES = {"gray": "L", "rgb": "RGB"}

_LOGGER = logging.getLogger(__name__)

Pixels = NDArray[np.uint8]


@dataclass(slots=True)
class FileInfo:
    """What decoding an image reports besides its pixels.

    Attributes:
        warnings: Warnings about conversions.
        frames: Number of frames of a DICOM file; 1 for other files.
        sop_instance_uid: SOP Instance UID of a DICOM file; "" for other files, or if it is missing or does not consist
            of at most 64 digits and dots.
        spacing: Distance between the pixels of a DICOM file; None for other files, or if it is missing or invalid.
    """

    warnings: list[ImageWarning] = field(default_factory=list)
    frames: int = 1
    sop_instance_uid: str = ""
    spacing: Spacing | None = None


class ImageReader:
    """Decodes image files to the input format of one model.

    Args:
        target: The model's input format.
        limits: Limits for encoded images.
    """

    def __init__(self, target: Target, limits: ImageLimits) -> None:
        self.target = target
        self.limits = limits

    def read(self, data: bytes, frame: int | None = None) -> tuple[Pixels, list[ImageWarning]]:
        """Decodes a file like `decode`, and returns its pixels and the warnings about conversions."""
        pixels, info = self.decode(data, frame)
        return pixels, info.warnings

    def decode(self, data: bytes, frame: int | None = None) -> tuple[Pixels, FileInfo]:
        """Decodes a PNG, JPEG, TIFF or DICOM file to uint8 [height, width, channels].

        Args:
            data: Contents of the file.
            frame: Frame of a DICOM file, from 0; None for the first, with a warning if there are more.

        Raises:
            ImageRefused: The file is corrupt, of an unsupported format, too large, or ambiguous.
        """
        info = FileInfo()
        try:
            image = _to_mode(self._decode(data, frame, info), _MODES[self.target.color], info.warnings)
            return self.fit(image, info.warnings), info
        except ImageRefused:
            raise
        except Exception as error:
            # A bug in a decoder must refuse only this image, not fail the other images of a request.
            kind = type(error).__name__
            _LOGGER.warning("an image of %d bytes could not be decoded: %s", len(data), kind)
            raise ImageRefused(f"cannot be decoded ({len(data)} bytes, {kind}); it may be corrupt") from error

    def fit(self, image: Image.Image, warnings: list[ImageWarning]) -> Pixels:
        """Crops and resizes an image, which must have the target's mode, to uint8 [height, width, channels]."""
        target = self.target
        size = target.width or image.width, target.height or image.height
        if image.size != size:
            box = self._box(image, size, warnings)
            width, height = box[2] - box[0], box[3] - box[1]
            if (width, height) != size:
                message = f"resized from {width:g} x {height:g} to {size[0]} x {size[1]}"
                warnings.append(ImageWarning("RESIZED", message))
            image = image.resize(size, _RESAMPLING[target.resampling], box=box)
        return np.asarray(image, np.uint8).reshape(image.height, image.width, target.channels)

    def _box(
        self, image: Image.Image, size: tuple[int, int], warnings: list[ImageWarning]
    ) -> tuple[float, float, float, float]:
        """Returns the crop box for a target of this width and height: left, top, right and bottom, in pixels."""
        if self.target.crop == "none" or image.width * size[1] == image.height * size[0]:
            return 0.0, 0.0, float(image.width), float(image.height)
        scale = min(image.width / size[0], image.height / size[1])
        width = min(size[0] * scale, image.width)  # rounding may exceed the image
        height = min(size[1] * scale, image.height)
        left, top = (image.width - width) / 2, (image.height - height) / 2
        warnings.append(
            ImageWarning("CROPPED", f"cropped to the central {width:g} x {height:g} of {image.width} x {image.height}")
        )
        return left, top, left + width, top + height

    def _decode(self, data: bytes, frame: int | None, info: FileInfo) -> Image.Image:
        if _is_dicom(data):
            return self._decode_dicom(data, frame, info)
        if frame:
            raise ImageRefused(f"is {frame}, but only DICOM files can have several frames", "frame")
        return decode_raster(data, self.limits, info.warnings)

    def _decode_dicom(self, data: bytes, frame: int | None, info: FileInfo) -> Image.Image:
        try:
            from medserve_images.dicom.reader import read_dicom  # noqa: PLC0415 - pydicom is optional
        except ModuleNotFoundError as error:
            raise ImageRefused(
                "is a DICOM file, which requires the extra dicom "
                "(pip install '.[dicom]' in a checkout of medserve, or 'FILE.whl[dicom]' with its wheel); or send a PNG"
            ) from error
        image, info.frames, info.sop_instance_uid, info.spacing = read_dicom(data, frame, self.limits, info.warnings)
        return image


def _is_dicom(data: bytes) -> bool:
    return data[128:132] == b"DICM"


def _to_mode(image: Image.Image, mode: str, warnings: list[ImageWarning]) -> Image.Image:
    """Converts an opaque 8-bit image to gray or RGB."""
    if image.mode == mode:
        return image
    warnings.append(ImageWarning("COLOR_CONVERTED", f"converted from {image.mode} to {mode}"))
    return image.convert(mode)
