"""How an image becomes inputs of a model, and the outputs for them become those of the image."""

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from medserve_images import Pixels
from medserve_masks.tiles import Tiles
from medserve_proto.v1.manifest_pb2 import SegmentationInput
from medserve_server.segment.stretch import Stretch


class Plan(Protocol):
    """The inputs of a model for one image."""

    def __len__(self) -> int:
        """Returns the number of inputs."""

    @property
    def size(self) -> tuple[int, ...]:
        """Height and width of an input."""

    def cut(self, image: Pixels, index: int) -> Pixels:
        """Returns an input, uint8 [height, width, channels]."""

    def blend(self, result: NDArray[np.float32], outputs: NDArray[np.float32], index: int) -> None:
        """Adds the outputs for an input, [labels, height, width], to those of the image, which are zeros at first."""


def plan_for(target: SegmentationInput, height: int, width: int) -> Plan:
    """Returns how an image of this size is segmented."""
    if target.WhichOneof("extent") == "fixed":
        return Stretch(height, width, target.fixed)
    tiling = target.tiling
    return Tiles(height, width, stride=target.stride, max_side=tiling.max_side, margin=tiling.margin)
