"""Segmentation at a fixed size: the image is stretched to it, and the outputs back to the size of the image."""

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from medserve_images import Pixels
from medserve_proto.v1.manifest_pb2 import RESAMPLING_BICUBIC, FixedSize
from medserve_server.explain.preview import to_picture


class Stretch:
    """A plan with a single input of a fixed size.

    Args:
        height: Height of the image.
        width: Width of the image.
        fixed: Size of the input, and the filter for resizing the image.
    """

    def __init__(self, height: int, width: int, fixed: FixedSize) -> None:
        self._extent = height, width
        self.size: tuple[int, ...] = (fixed.height, fixed.width)
        bicubic = fixed.resampling == RESAMPLING_BICUBIC
        self.pixels_per_input_pixel = height * width / (fixed.height * fixed.width)
        self._filter = Image.Resampling.BICUBIC if bicubic else Image.Resampling.BILINEAR

    def __len__(self) -> int:
        """Returns 1."""
        return 1

    def cut(self, image: Pixels, index: int) -> Pixels:  # noqa: ARG002 - there is only one
        """Returns the stretched image, uint8 [height, width, channels]."""
        height, width = self.size
        picture = to_picture(image)
        if picture.size != (width, height):
            picture = picture.resize((width, height), self._filter)
        return np.asarray(picture, np.uint8).reshape(height, width, image.shape[2])

    def blend(self, result: NDArray[np.float32], outputs: NDArray[np.float32], index: int) -> None:  # noqa: ARG002
        """Adds the outputs, [labels, height, width], stretched to the size of the image by bilinear interpolation."""
        height, width = self._extent
        for label, values in zip(result, outputs, strict=True):
            label += Image.fromarray(values).resize((width, height), Image.Resampling.BILINEAR)  # noqa: PLW2901 - in place
