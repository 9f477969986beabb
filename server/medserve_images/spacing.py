"""The distance between the pixels of an image, as its file states it."""

import math
from dataclasses import dataclass
from typing import Literal

MAX_SPACING = 1000.0
"""In millimeters. Larger distances are implausible: an image of 2 x 2 pixels would be as large as a patient."""

SpacingSource = Literal["PIXEL_SPACING", "IMAGER_PIXEL_SPACING", "ULTRASOUND_REGION"]


@dataclass(frozen=True, slots=True)
class Spacing:
    """The distance between the centers of neighboring pixels, in millimeters.

    Attributes:
        row: Between rows: vertically.
        column: Between columns: horizontally.
        source: The element of the file; a value of medserve.v1.PixelSpacing.Source, without the prefix SOURCE_.
        at_detector: Whether it is the distance at the detector, which is larger than in the body.
    """

    row: float
    column: float
    source: SpacingSource
    at_detector: bool = False


def is_plausible(distance: float) -> bool:
    """Returns whether a distance in millimeters may be that of two pixels."""
    return math.isfinite(distance) and 0 < distance <= MAX_SPACING
