"""The image format of a model's input, and the limits for encoded images."""

from dataclasses import dataclass
from typing import Literal

Color = Literal["gray", "rgb"]
Crop = Literal["none", "center"]
Resampling = Literal["bilinear", "bicubic"]


@dataclass(frozen=True, slots=True)
class Target:
    """The input format of an image model.

    Attributes:
        height: In pixels; None, as the width, for the size of each image.
        width: In pixels.
        color: One channel (luma by ITU-R 601-2), or red, green and blue.
        crop: How an image with a different aspect ratio is handled: "none" stretches it, "center" crops it to the
            largest centered area with the target's aspect ratio.
        resampling: The filter for resizing.
    """

    height: int | None
    width: int | None
    color: Color
    crop: Crop = "none"
    resampling: Resampling = "bilinear"

    @property
    def channels(self) -> int:
        """Number of channels."""
        return 1 if self.color == "gray" else 3


@dataclass(frozen=True, slots=True)
class ImageLimits:
    """Limits for encoded images.

    Attributes:
        max_pixels: Maximum number of pixels of an image or frame, checked before decoding.
        max_ratio: Maximum number of pixels per encoded byte, for images of more than one megapixel.
    """

    max_pixels: int = 40_000_000
    max_ratio: float = 200.0
