"""Warnings about images that were read."""

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
    "ELEMENT_IGNORED",
    "TILED",
    "SPACING_UNKNOWN",
    "MAGNIFIED",
]


@dataclass(frozen=True, slots=True)
class ImageWarning:
    """A conversion of an image, or a property of it that may make the result less reliable.

    Attributes:
        kind: A value of medserve.v1.ImageWarning.Kind, without the prefix KIND_.
        message: Description for users.
    """

    kind: Kind
    message: str


def depth_reduced(bits: int) -> ImageWarning:
    """Returns the warning that samples of more than 8 bits were reduced to their upper 8 bits."""
    return ImageWarning("DEPTH_REDUCED", f"reduced from {bits} to 8 bits, {2**bits - 1} becoming 255")


def range_unused(limit: int, bits: int) -> ImageWarning:
    """Returns the warning that all samples are below `limit`, far below their maximum, and are not rescaled."""
    return ImageWarning(
        "RANGE_UNUSED",
        f"all values are below {limit}, although {bits} bits hold up to {2**bits - 1}: "
        "the image uses only a small part of its value range",
    )
