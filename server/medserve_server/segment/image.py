"""One image of a request: cut into inputs of the model, and collected from its outputs."""

import math

import numpy as np
from numpy.typing import NDArray

from medserve_images import FileInfo, Pixels
from medserve_proto.v1.image_segmentation_pb2 import PixelSpacing
from medserve_proto.v1.manifest_pb2 import ImageSegmentationTask
from medserve_server.engine.manifest.segmentation import map_outputs
from medserve_server.engine.work import Arrays
from medserve_server.segment.objects import Scale
from medserve_server.segment.plan import plan_for
from medserve_server.segment.stretch import Stretch

Maps = dict[str, NDArray[np.float32]]
"""Outputs of the graph by name, each [labels, height, width] of the image."""


class SegmentedImage:
    """One image of a request.

    Args:
        pixels: uint8 [height, width, channels].
        info: what its file states.
        spacing: its pixel spacing; None if it is not known.
        task: task in the model's manifest.

    Attributes:
        maps: the outputs for the whole image, complete once those for all inputs have been added.
        plan: how the image is segmented.
    """

    def __init__(
        self, pixels: Pixels, info: FileInfo, spacing: PixelSpacing | None, task: ImageSegmentationTask
    ) -> None:
        self.pixels = pixels
        self.info = info
        self.spacing = spacing
        self.plan = plan_for(task.input, *pixels.shape[:2])
        self.maps: Maps = {}
        self._shape = (len(task.labels), *pixels.shape[:2])
        self._names = map_outputs(task)
        self._added = 0
        self._novelties: list[float] = []

    def inputs(self, start: int, count: int) -> Pixels:
        """Returns the inputs from `start` on, at most `count` of them, uint8 [inputs, height, width, channels]."""
        stop = min(start + count, len(self.plan))
        return np.stack([self.plan.cut(self.pixels, index) for index in range(start, stop)])

    def add(self, outputs: Arrays) -> None:
        """Adds the model's outputs for the next inputs."""
        if not self.maps:  # not before, since images wait for each other
            self.maps = {name: np.zeros(self._shape, np.float32) for name in self._names}
        for name, found in self.maps.items():
            for index, values in enumerate(outputs[name], start=self._added):
                self.plan.blend(found, values.astype(np.float32, copy=False), index)
        self._added += len(outputs["probabilities"])
        if "novelty" in outputs:
            self._novelties += outputs["novelty"].tolist()

    @property
    def scale(self) -> Scale:
        """The sizes of its pixels."""
        pixels = self.plan.pixels_per_input_pixel if isinstance(self.plan, Stretch) else 1.0
        if self.spacing is None:
            return Scale("px", (1.0, 1.0), math.sqrt(pixels))
        row, column = self.spacing.row_mm, self.spacing.column_mm
        return Scale("mm", (row, column), math.sqrt(row * column * pixels))

    @property
    def novelty(self) -> float | None:
        """The mean novelty of the inputs; None for models that do not measure it."""
        return float(np.mean(self._novelties)) if self._novelties else None
