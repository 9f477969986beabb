"""A segmented image with its figures."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from medserve_training.data.masks.image import MaskedImage


@dataclass(frozen=True)
class Segmented:
    """A segmented image.

    Attributes:
        image: The image with its masks.
        labels: The objects that were found, int32 [labels, h, w].
        figures: Its figures, by name; with several labels, the name of the label precedes each.
        novelty: Its novelty score.
        measure: The task's measure in mm; None if it has none, or nothing was found.
    """

    image: MaskedImage
    labels: NDArray[np.int32]
    figures: dict[str, float]
    novelty: float
    measure: float | None
