"""Runs a segmentation model on whole images, in tiles as a server does."""

from collections.abc import Mapping, Sequence

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from medserve_masks import Tiles
from medserve_proto.v1 import manifest_pb2 as pb
from medserve_training.data.masks.image import MaskedImages
from medserve_training.data.splits import Splits

Maps = NDArray[np.float32]


def predict_splits(
    session: onnxruntime.InferenceSession,
    data: Splits[MaskedImages],
    size: pb.SegmentationInput,
    splits: Sequence[str],
) -> dict[str, list[Mapping[str, Maps]]]:
    """Returns the outputs for each image of each split, as `predict_maps` does, with the same arguments."""
    return {split: [predict_maps(session, image.pixels, size) for image in data.part(split)] for split in splits}


def predict_maps(
    session: onnxruntime.InferenceSession, pixels: NDArray[np.uint8], size: pb.SegmentationInput
) -> Mapping[str, Maps]:
    """Returns the outputs for one image: maps, float32 [labels, h, w], and `novelty`, the mean over the tiles.

    Args:
        session: The model.
        pixels: uint8 [h, w, channels]; for models of fixed size, already of that size.
        size: The manifest's description of the input.
    """
    names = [output.name for output in session.get_outputs()]
    height, width = pixels.shape[:2]
    side, margin = size.tiling.max_side, size.tiling.margin
    if not size.HasField("tiling"):
        side, margin = max(height, width), 0
    tiles = Tiles(height, width, stride=size.stride, max_side=side, margin=margin)
    maps: dict[str, Maps] = {}
    novelty = []
    for index in range(len(tiles)):
        outputs = dict(zip(names, session.run(names, {"image": tiles.cut(pixels, index)[None]}), strict=True))
        novelty.append(outputs.pop("novelty")[0])
        for name, array in outputs.items():
            whole = maps.setdefault(name, np.zeros((array.shape[1], height, width), np.float32))
            tiles.blend(whole, array[0], index)
    maps["novelty"] = np.array(np.mean(novelty), np.float32)
    return maps
