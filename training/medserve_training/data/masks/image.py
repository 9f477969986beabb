"""The type of images with masks."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray


class MaskedImage(NamedTuple):
    """An image and its objects.

    Attributes:
        name: Name of the image.
        group: Images of one group, such as a patient, are in the same split.
        pixels: uint8 [height, width, channels].
        labels: Number of the object at each pixel, 0 for background, int32 [labels, height, width].
        kind: Subgroup for which figures are also computed, e.g. the stain; empty for none.
        spacing: Distance between rows and between columns in mm; None if it is not known.
        reference: Reference of the task's measure in mm; None if there is none.
    """

    name: str
    group: str
    pixels: NDArray[np.uint8]
    labels: NDArray[np.int32]
    kind: str = ""
    spacing: tuple[float, float] | None = None
    reference: float | None = None


MaskedImages = tuple[MaskedImage, ...]
