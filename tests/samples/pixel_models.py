"""A model that returns its input pixels, and one that fails on some of them."""

import onnx
from onnx import TensorProto, helper

from medserve_proto.v1 import manifest_pb2 as pb
from samples import explained_models, onnx_models

INPUTS = {
    "seeing-gray": pb.ImageInput(
        height=14,
        width=16,
        color_space=pb.COLOR_SPACE_GRAY,
        crop=pb.CROP_CENTER,
        resampling=pb.RESAMPLING_BICUBIC,
    ),
    "seeing-rgb": pb.ImageInput(
        height=64,
        width=64,
        color_space=pb.COLOR_SPACE_RGB,
        crop=pb.CROP_NONE,
        resampling=pb.RESAMPLING_BILINEAR,
    ),
}
"""Inputs of models by name."""
FATAL = 255
"""Value of the first pixel that makes a run of a fragile model fail."""


def seeing(image: pb.ImageInput, *, fragile: bool = False) -> onnx.ModelProto:
    """Builds a model whose feature map "pixels" is the image, [channels, height, width].

    Args:
        image: Input of the model.
        fragile: Whether a run fails if the first sample of an image is FATAL.
    """
    channels = 3 if image.color_space == pb.COLOR_SPACE_RGB else 1
    nodes = [
        helper.make_node("Cast", ["image"], ["pixels"], to=TensorProto.FLOAT),
        helper.make_node("Transpose", ["pixels"], ["feature_map.pixels"], perm=[0, 3, 1, 2]),
        helper.make_node("Flatten", ["pixels"], ["flat"]),
        helper.make_node("Constant", [], ["first"], value_ints=[0]),
        helper.make_node("Gather", ["flat", "first"], ["corner"], axis=1),
        helper.make_node("Cast", ["corner"], ["row"], to=TensorProto.INT64),
        helper.make_node("Constant", [], ["table"], value_floats=[0.5] * (FATAL if fragile else FATAL + 1)),
        helper.make_node("Gather", ["table", "row"], ["half"]),
        helper.make_node("Concat", ["half", "half"], ["probabilities"], axis=1),
    ]
    shape: onnx_models.Shape = ["batch", image.height, image.width, channels]
    model = onnx_models.make(
        nodes,
        {"image": (TensorProto.UINT8, shape)},
        {
            "probabilities": (TensorProto.FLOAT, ["batch", 2]),
            "feature_map.pixels": (TensorProto.FLOAT, ["batch", channels, image.height, image.width]),
        },
    )
    size = pb.MapSize(height=image.height, width=image.width)
    task = pb.ImageClassificationTask(
        input=image,
        labels=["normal", "pneumonia"],
        feature_maps=[pb.FeatureMap(layer="pixels", channels=channels, size=size)],
    )
    return explained_models.with_manifest(
        model, pb.Manifest(schema_version=1, name="seeing", image_classification=task)
    )
