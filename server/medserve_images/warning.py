"""What is said about an image that was read."""

from dataclasses import dataclass
from typing import Literal

Kind = Literal[
    "RESIZED",
    "CROPPED",
    "COLOR_CONVERTED",
    "DEPTH_REDUCED",
    "FIRST_OF_SEVERAL",
    "RANGE_UNUSED",
    "PROFILE_IGNORED",
]


@dataclass(frozen=True, slots=True)
class ImageWarning:
    """Something that was done to an image before the model sees it, or that its reader should know.

    Attributes:
        kind: A value of medserve.v1.ImageWarning.Kind, without its prefix.
        message: The same in words.
    """

    kind: Kind
    message: str


def depth_reduced(bits: int) -> ImageWarning:
    """Samples of more than 8 bits lost the lower ones."""
    return ImageWarning("DEPTH_REDUCED", f"reduced from {bits} to 8 bits, {2**bits - 1} becoming 255")


def range_unused(limit: int, bits: int) -> ImageWarning:
    """Every sample is below `limit`, far below what its bits could hold; the scale stays that of the bits."""
    return ImageWarning(
        "RANGE_UNUSED",
        f"all values are below {limit}, though {bits} bits hold up to {2**bits - 1}: "
        "the image uses a small part of the range of shades",
    )
