"""How the objects of a label are found in a model's outputs."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ObjectRule:
    """How the objects of a label are found in a model's outputs.

    Attributes:
        threshold: Pixels with at least this probability belong to the label.
        marker_distance: Connected areas whose distance is at or above this value are the markers of a watershed, which
            separates touching objects; None if an object is a connected area of the label.
        min_area: Area in pixels; smaller objects are discarded.
        largest_only: Whether only the largest object is kept.
        fill_holes: Whether holes in objects are filled.
    """

    threshold: float
    marker_distance: float | None
    min_area: int
    largest_only: bool
    fill_holes: bool
