"""Networks for the GPU tests that are not packaged: random weights, expected results from ONNX's reference evaluator.

Built without PyTorch, which the environment of these tests lacks.
"""

from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from medserve_proto.v1 import manifest_pb2 as pb
from samples import onnx_models
from samples.explained_models import constant, with_manifest

Pixels = NDArray[np.uint8]

LABELS = ["a", "b", "c", "d"]


class Layers:
    """A graph under construction, from pixels to the node added last."""

    def __init__(self, seed: int) -> None:
        self.random = np.random.default_rng(seed)
        self.nodes = [
            helper.make_node("Cast", ["image"], ["float"], to=TensorProto.FLOAT),
            helper.make_node("Transpose", ["float"], ["planes"], perm=[0, 3, 1, 2]),
            constant("middle", np.array(128, np.float32)),
            helper.make_node("Sub", ["planes", "middle"], ["centered"]),
            constant("spread", np.array(64, np.float32)),
            helper.make_node("Div", ["centered", "spread"], ["standardized"]),
        ]
        self.last = "standardized"
        self.weights: list[onnx.TensorProto] = []

    def add(self, kind: str, *more: str, **attributes: Any) -> str:  # noqa: ANN401 - of any operator
        """Adds a node whose inputs are the output of the last node and `more`."""
        output = f"value{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, [self.last, *more], [output], **attributes))
        self.last = output
        return output

    def weight(self, values: NDArray[np.floating]) -> str:
        name = f"weight{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(values.astype(np.float32), name))
        return name

    def convolution(
        self, before: int, after: int, kernel: int, *, stride: int = 1, pad: int = 0, gain: float = 1.0
    ) -> str:
        shape = (after, before, kernel, kernel)
        weights = self.random.standard_normal(shape) * gain * np.sqrt(2 / (before * kernel * kernel))
        names = self.weight(weights), self.weight(np.zeros(after))
        return self.add("Conv", *names, strides=[stride, stride], pads=[pad] * 4)

    def dense(self, before: int, after: int) -> str:
        weights = self.random.standard_normal((before, after)) * np.sqrt(2 / before)
        return self.add("Gemm", self.weight(weights), self.weight(np.zeros(after)))


def article_cnn() -> onnx.ModelProto:
    """The articles' network for images, as in training/medserve_training/networks/images/baseline.py."""
    layers = Layers(seed=0)
    for before, after in ((1, 32), (32, 64), (64, 64)):
        layers.convolution(before, after, 3)
        layers.add("Relu")
        if after != before:
            layers.add("MaxPool", kernel_shape=[2, 2], strides=[2, 2])
    layers.add("Flatten")
    layers.dense(64 * 3 * 3, 64)
    layers.add("Relu")
    layers.dense(64, len(LABELS))
    return _classifier("article-cnn", layers, _pictures(28, 1))


def resnet_50() -> onnx.ModelProto:
    """ResNet-50 for images of 224 by 224, with batch normalization folded into the convolutions."""
    layers = Layers(seed=1)
    layers.convolution(3, 64, 7, stride=2, pad=3)
    layers.add("Relu")
    layers.add("MaxPool", kernel_shape=[3, 3], strides=[2, 2], pads=[1] * 4)
    channels = 64
    for stage, blocks in enumerate((3, 4, 6, 3)):
        for block in range(blocks):
            stride = 2 if stage > 0 and block == 0 else 1
            channels = _bottleneck(layers, channels, 64 * 2**stage, stride)
    layers.add("GlobalAveragePool")
    layers.add("Flatten")
    layers.dense(channels, len(LABELS))
    return _classifier("resnet-50", layers, _pictures(224, 3))


def _bottleneck(layers: Layers, channels: int, width: int, stride: int) -> int:
    """A residual block of three convolutions; returns its channels."""
    start = layers.last
    layers.convolution(channels, width, 1)
    layers.add("Relu")
    layers.convolution(width, width, 3, stride=stride, pad=1)
    layers.add("Relu")
    branch = layers.convolution(width, 4 * width, 1, gain=0.3)  # so that values do not grow over 16 blocks
    layers.last = start
    if channels != 4 * width:
        layers.convolution(channels, 4 * width, 1, stride=stride)
    layers.add("Add", branch)
    layers.add("Relu")
    return 4 * width


def _pictures(size: int, channels: int) -> Pixels:
    """Eight images that differ in brightness, contrast and content."""
    random = np.random.default_rng(2)
    coarse = random.standard_normal((8, 7, 7, channels)).repeat(size // 7, axis=1).repeat(size // 7, axis=2)
    fine = random.standard_normal((8, size, size, channels))
    levels = np.linspace(60, 200, 8)[:, None, None, None]
    contrasts = np.array([10, 60, 20, 50, 30, 40, 5, 70])[:, None, None, None]
    return (levels + contrasts * (coarse + fine / 2)).clip(0, 255).round().astype(np.uint8)


def _classifier(name: str, layers: Layers, pictures: Pixels) -> onnx.ModelProto:
    """Adds the softmax and a manifest with reference rows.

    The logits are standardized over the images: a probability close to 0 or 1 would be insensitive to deviations.
    """
    logits = _run(_model(layers, "logits", pictures), pictures)
    layers.add("Sub", layers.weight(logits.mean(axis=0)))
    layers.add("Div", layers.weight(logits.std(axis=0)))
    layers.add("Softmax", axis=1)
    model = _model(layers, "probabilities", pictures)
    manifest = _manifest(name, pictures, _run(model, pictures))
    return with_manifest(model, manifest)


def _model(layers: Layers, output: str, pictures: Pixels) -> onnx.ModelProto:
    shape: onnx_models.Shape = ["batch", *pictures.shape[1:]]
    result: onnx_models.Shape = ["batch", len(LABELS)]
    graph = helper.make_graph(
        [*layers.nodes, helper.make_node("Identity", [layers.last], [output])],
        "test",
        [helper.make_tensor_value_info("image", TensorProto.UINT8, shape)],
        [helper.make_tensor_value_info(output, TensorProto.FLOAT, result)],
        layers.weights,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


def _run(model: onnx.ModelProto, pictures: Pixels) -> NDArray[np.float32]:
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    (output,) = session.run(None, {"image": pictures})
    values: NDArray[np.float32] = output
    return values


def _manifest(name: str, pictures: Pixels, probabilities: NDArray[np.float32]) -> pb.Manifest:
    _, height, width, channels = pictures.shape
    return pb.Manifest(
        schema_version=1,
        name=name,
        image_classification=pb.ImageClassificationTask(
            input=pb.ImageInput(
                height=height,
                width=width,
                color_space=pb.COLOR_SPACE_RGB if channels == 3 else pb.COLOR_SPACE_GRAY,
                crop=pb.CROP_NONE,
                resampling=pb.RESAMPLING_BILINEAR,
            ),
            labels=LABELS,
        ),
        reference=[
            pb.ReferenceRow(pixels=picture.tobytes(), probabilities=answer)
            for picture, answer in zip(pictures, probabilities.tolist(), strict=True)
        ],
    )


def free_size() -> onnx.ModelProto:
    """y = images of any size, blurred by a convolution."""
    weights = numpy_helper.from_array(np.full((1, 1, 3, 3), 1 / 9, np.float32), "weights")
    shape: onnx_models.Shape = ["batch", 1, "height", "width"]
    graph = helper.make_graph(
        [helper.make_node("Conv", ["x", "weights"], ["y"], pads=[1] * 4)],
        "test",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, shape)],
        [weights],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


def square() -> onnx.ModelProto:
    """y = the maximum of x * x', for x of any length n: an intermediate result of n * n numbers."""
    nodes = [
        constant("first", np.array([1])),
        constant("second", np.array([2])),
        helper.make_node("Unsqueeze", ["x", "second"], ["column"]),
        helper.make_node("Unsqueeze", ["x", "first"], ["row"]),
        helper.make_node("MatMul", ["column", "row"], ["product"]),
        constant("both", np.array([1, 2])),
        helper.make_node("ReduceMax", ["product", "both"], ["y"], keepdims=0),
    ]
    return onnx_models.make(nodes, {"x": (TensorProto.FLOAT, ["batch", "n"])}, {"y": (TensorProto.FLOAT, ["batch"])})
