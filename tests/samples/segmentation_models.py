"""Segmentation models whose outputs NumPy can compute: the probability of a pixel is its brightness."""

from collections.abc import Sequence

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper

from medserve_proto.v1 import manifest_pb2 as pb
from samples import explained_models, onnx_models

STRIDE = 8
MAX_SIDE = 64
MARGIN = 8
BLUR = 9
"""Side of the square over which the output `distance` is the mean brightness; its half is within the margin."""
MEMBERS = 2
UNFAMILIAR = 200.0
"""Novelty, the mean pixel, above which an image is unfamiliar."""


def tiled() -> pb.SegmentationInput:
    """Returns the input of a model that segments images of any size, in tiles."""
    tiling = pb.Tiling(max_side=MAX_SIDE, margin=MARGIN)
    return pb.SegmentationInput(color_space=pb.COLOR_SPACE_GRAY, stride=STRIDE, tiling=tiling)


def stretched(height: int, width: int) -> pb.SegmentationInput:
    """Returns the input of a model for a fixed size."""
    fixed = pb.FixedSize(height=height, width=width, resampling=pb.RESAMPLING_BILINEAR)
    return pb.SegmentationInput(color_space=pb.COLOR_SPACE_GRAY, stride=STRIDE, fixed=fixed)


def bright(name: str = "spot", **rule: object) -> pb.SegmentedLabel:
    """Returns a label of pixels that are brighter than half."""
    values: dict[str, object] = {"name": name, "threshold": 0.5, "chosen_on": "validation"}
    return pb.SegmentedLabel(**(values | rule))  # type: ignore[arg-type]


def manifest(
    image: pb.SegmentationInput, labels: Sequence[pb.SegmentedLabel], *, ensemble: bool = False
) -> pb.Manifest:
    """Returns a manifest; an ensemble has disagreement and novelty."""
    task = pb.ImageSegmentationTask(input=image, labels=labels, members=MEMBERS if ensemble else 1)
    if ensemble:
        task.novelty.CopyFrom(pb.Novelty(method="mean pixel", threshold=UNFAMILIAR))
    return pb.Manifest(schema_version=1, name="spots", image_segmentation=task)


def spots(manifest: pb.Manifest) -> onnx.ModelProto:
    """Builds a model for one channel and up to two labels, bright pixels and dark ones.

    probability = pixel / 255, and 1 minus that for the second label; distance is its mean over a square of BLUR pixels;
    disagreement is half of it; novelty is the mean pixel.
    """
    task = manifest.image_segmentation
    both = ["bright", "dark"][: len(task.labels)]
    half = BLUR // 2
    nodes = [
        helper.make_node("Cast", ["image"], ["pixels"], to=TensorProto.FLOAT),
        helper.make_node("Transpose", ["pixels"], ["planes"], perm=[0, 3, 1, 2]),
        helper.make_node("Constant", [], ["white"], value_float=255.0),
        helper.make_node("Constant", [], ["one"], value_float=1.0),
        helper.make_node("Constant", [], ["half"], value_float=0.5),
        helper.make_node("Constant", [], ["space"], value_ints=[1, 2, 3]),
        helper.make_node("Div", ["planes", "white"], ["bright"]),
        helper.make_node("Sub", ["one", "bright"], ["dark"]),
        helper.make_node("Concat", both, ["probabilities"], axis=1),
        helper.make_node(
            "AveragePool", ["probabilities"], ["distance"], kernel_shape=[BLUR, BLUR], pads=[half, half, half, half]
        ),
        helper.make_node("Mul", ["probabilities", "half"], ["disagreement"]),
        helper.make_node("ReduceMean", ["pixels", "space"], ["novelty"], keepdims=0),
    ]
    maps: tuple[int, onnx_models.Shape] = (TensorProto.FLOAT, ["batch", len(task.labels), "height", "width"])
    model = onnx_models.make(
        nodes,
        {"image": (TensorProto.UINT8, ["batch", "height", "width", 1])},
        {
            "probabilities": maps,
            "distance": maps,
            "disagreement": maps,
            "novelty": (TensorProto.FLOAT, ["batch"]),
        },
    )
    return explained_models.with_manifest(model, manifest)


def blurred(probabilities: NDArray[np.floating]) -> NDArray[np.float32]:
    """Returns the output `distance` for the probabilities of a label, [height, width]."""
    half = BLUR // 2
    padded = np.pad(probabilities.astype(np.float64), half, constant_values=np.nan)
    windows = np.lib.stride_tricks.sliding_window_view(padded, (BLUR, BLUR))
    return np.asarray(np.nanmean(windows, axis=(2, 3)), np.float32)
