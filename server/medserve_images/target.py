"""What a model takes: the size and color that images are brought to, and how."""

from dataclasses import dataclass
from typing import Literal

Color = Literal["gray", "rgb"]
Crop = Literal["none", "center"]
Resampling = Literal["bilinear", "bicubic"]


@dataclass(frozen=True, slots=True)
class Target:
    """The input of an image model.

    Attributes:
        height: In pixels.
        width: In pixels.
        color: One channel (luma by ITU-R 601-2), or red, green and blue.
        crop: What happens to an image of another aspect ratio: "none" stretches all of it, "center" cuts out the
            largest centered part of the right one.
        resampling: The filter that changes the size.
    """

    height: int
    width: int
    color: Color
    crop: Crop
    resampling: Resampling

    @property
    def channels(self) -> int:
        """Number of channels of a pixel."""
        return 1 if self.color == "gray" else 3


@dataclass(frozen=True, slots=True)
class ImageLimits:
    """What an encoded image may cost.

    Attributes:
        max_pixels: Of one image or frame, checked before it is decoded.
        max_ratio: Pixels for each byte of an encoded image of more than a megapixel.
    """

    max_pixels: int = 40_000_000
    max_ratio: float = 200.0
