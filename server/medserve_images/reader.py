"""From an encoded file to the pixels that a model takes."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from medserve_images.errors import ImageRefused
from medserve_images.raster import decode_raster
from medserve_images.target import ImageLimits, Target

_RESAMPLING = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}
_MODES = {"gray": "L", "rgb": "RGB"}

Pixels = NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class ImageWarning:
    """Something that was done to an image before the model sees it.

    Attributes:
        kind: A value of medserve.v1.ImageWarning.Kind, without its prefix.
        message: The same in words.
    """

    kind: str
    message: str


class ImageReader:
    """Reads image files as one model takes them.

    Args:
        target: The model's input.
        limits: What a file may cost.
    """

    def __init__(self, target: Target, limits: ImageLimits) -> None:
        self.target = target
        self.limits = limits

    def read(self, data: bytes, frame: int = 0) -> tuple[Pixels, list[ImageWarning]]:
        """Decodes a PNG, JPEG, TIFF or DICOM file to uint8 [height, width, channels] and says what it changed.

        Args:
            data: The file.
            frame: Of a DICOM file, from 0.

        Raises:
            ImageRefused: The file is broken, of another format, too large, or of a kind without one clear reading.
        """
        warnings: list[ImageWarning] = []
        if data[128:132] == b"DICM":
            image = self._decode_dicom(data, frame, warnings)
        elif frame:
            raise ImageRefused(f"asks for frame {frame}, but only DICOM files have several", "frame")
        else:
            image = decode_raster(data, self.limits)
        image = _to_mode(image, _MODES[self.target.color], warnings)
        return self.fit(image, warnings), warnings

    def fit(self, image: Image.Image, warnings: list[ImageWarning]) -> Pixels:
        """Crops and resizes an image of the target's mode to uint8 [height, width, channels]."""
        target = self.target
        if image.size != (target.width, target.height):
            box = self._box(image, warnings)
            size = f"{box[2] - box[0]:g} x {box[3] - box[1]:g}"
            warnings.append(ImageWarning("RESIZED", f"resized from {size} to {target.width} x {target.height}"))
            image = image.resize((target.width, target.height), _RESAMPLING[target.resampling], box=box)
        return np.asarray(image, np.uint8).reshape(target.height, target.width, target.channels)

    def _box(self, image: Image.Image, warnings: list[ImageWarning]) -> tuple[float, float, float, float]:
        """The part of the image that is kept: left, top, right and bottom, in pixels."""
        target = self.target
        if target.crop == "none" or image.width * target.height == image.height * target.width:
            return 0.0, 0.0, float(image.width), float(image.height)
        scale = min(image.width / target.width, image.height / target.height)
        width = min(target.width * scale, image.width)  # rounding may have gone up
        height = min(target.height * scale, image.height)
        left, top = (image.width - width) / 2, (image.height - height) / 2
        warnings.append(
            ImageWarning("CROPPED", f"cut to its middle {width:g} x {height:g} of {image.width} x {image.height}")
        )
        return left, top, left + width, top + height

    def _decode_dicom(self, data: bytes, frame: int, warnings: list[ImageWarning]) -> Image.Image:
        try:
            from medserve_images.dicom.reader import read_dicom  # noqa: PLC0415 - pydicom is optional
        except ModuleNotFoundError as error:
            raise ImageRefused(
                'is a DICOM file, and pydicom is not installed; install "medserve[dicom]", or send a PNG'
            ) from error
        image, changes = read_dicom(data, frame, self.limits.max_pixels)
        warnings.extend(ImageWarning(kind, message) for kind, message in changes)
        return image


def _to_mode(image: Image.Image, mode: str, warnings: list[ImageWarning]) -> Image.Image:
    """Brings 1-bit, palette, 16-bit, color and opaque images to 8-bit gray or RGB."""
    if image.mode.startswith("I;16"):
        # Pillow would clip at 255 instead of scaling.
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
        warnings.append(ImageWarning("DEPTH_REDUCED", "reduced from 16 to 8 bits, 65535 becoming 255"))
    if image.mode in {"I", "F"}:
        raise ImageRefused(f"has 32-bit pixels (mode {image.mode}), whose range is unknown; expected 8 or 16")
    if image.has_transparency_data:
        alpha = image.convert("RGBA").getchannel("A")
        if alpha.getextrema() != (255, 255):
            raise ImageRefused("has transparent pixels, whose color is undefined; send it without")
        image = image.convert("RGB" if image.mode in {"RGBA", "P", "PA", "RGB"} else "L")
    if image.mode == mode:
        return image
    if image.mode != "1":
        warnings.append(ImageWarning("COLOR_CONVERTED", f"converted from {image.mode} to {mode}"))
    return image.convert(mode)
