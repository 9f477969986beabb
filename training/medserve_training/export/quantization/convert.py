"""Converts the convolutions of a graph to 8-bit integers.

Static quantization with ONNX Runtime's tools, with QuantizeLinear and DequantizeLinear around each operator (QDQ). The
expensive operators are converted: all convolutions except the first, and the poolings between them. The first
convolution stays in float, since an integer convolution of a single input channel is slower; so do standardization, the
dense layers, the softmax and the sigmoid, so that the interface of the file does not change.
"""

import contextlib
import io
import itertools
import math
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import onnx
from numpy.typing import NDArray
from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.calibrate import CalibrationDataReader

from medserve_proto.v1 import manifest_pb2 as pb
from medserve_training.errors import UserError
from medserve_training.export.inference import open_session, predict
from medserve_training.export.onnx_file import strip
from medserve_training.export.reference import reference_deviation, reference_input

_FOLLOWERS = ("Relu", "MaxPool")
# ONNX Runtime keeps the activations of a batch.
_BATCH = 8

Pixels = NDArray[np.uint8]


@dataclass(frozen=True)
class Candidate:
    """The graph of one calibration, and its largest deviation from PyTorch on the reference rows."""

    percentile: float
    graph: onnx.ModelProto
    reference_deviation: float


def convert(model: onnx.ModelProto, manifest: pb.Manifest, pictures: Pixels, percentile: float) -> Candidate:
    """Quantizes a model.

    Args:
        model: The model.
        manifest: Its manifest, with the reference rows.
        pictures: Input for calibration, uint8 [n, height, width, channels].
        percentile: Percentage of an activation's values that the range of its 256 steps covers; 100 is minimum to
            maximum.

    Raises:
        UserError: The graph has no second convolution.
    """
    graph = onnx.ModelProto()
    graph.CopyFrom(model)
    kept = keep_the_first_convolution(graph.graph)
    # Marks the graph as preprocessed.
    onnx.helper.set_model_props(graph, {"onnx.quant.pre_process": "onnxruntime.quant"})
    ranges = CalibrationMethod.MinMax if percentile == 100 else CalibrationMethod.Percentile
    with TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        path = Path(folder) / "model.onnx"
        quantize_static(
            graph,
            path,
            _Reader(model.graph.input[0].name, pictures),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=["Conv", *_FOLLOWERS],
            nodes_to_exclude=kept,
            per_channel=True,
            # With 7-bit weights, sums of two products cannot overflow on processors without VNNI.
            reduce_range=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            calibrate_method=ranges,
            extra_options={"CalibPercentile": percentile, "CalibStridedMinMax": 1},
        )
        converted = strip(onnx.load(path))
    onnx.checker.check_model(converted, full_check=True)
    session = open_session(converted.SerializeToString())
    output = predict(session, reference_input(manifest))
    return Candidate(percentile, converted, reference_deviation(manifest, output))


def keep_the_first_convolution(graph: onnx.GraphProto) -> list[str]:
    """Returns the names of the nodes that stay in float: each member's first convolution with its ReLU and pooling.

    Convolutions of 1 x 1 maps, as in squeeze-and-excitation, also stay in float, since quantizing them gains nothing.
    Each pooling is swapped with the ReLU before it, which does not change the result: ONNX Runtime would otherwise move
    the quantization before the pooling, and pool integers thirty times more slowly than floats.

    Raises:
        UserError: The graph has no second convolution.
    """
    convolutions = [node for node in graph.node if node.op_type == "Conv"]
    first = [node for node in convolutions if node.input[0] == convolutions[0].input[0]]
    if len(convolutions) == len(first):
        raise UserError(
            f"the graph has too few convolutions ({len(convolutions)}): only those after the first are converted"
        )
    makers = {node.output[0]: node for node in graph.node}
    kept: list[str] = []
    for convolution in first:
        kept += [node.name for node in _with_followers(graph, convolution)]
    squeezed = {node.output[0] for node in graph.node if node.op_type == "ReduceMean"}
    for node in convolutions:
        before = makers.get(node.input[0])
        if before is not None and before.op_type in _FOLLOWERS:
            before = makers.get(before.input[0])
        if node.input[0] in squeezed or (before is not None and before.name in kept and before.input[0] in squeezed):
            kept += [entry.name for entry in _with_followers(graph, node)]
    return kept


def _with_followers(graph: onnx.GraphProto, convolution: onnx.NodeProto) -> list[onnx.NodeProto]:
    """Returns a convolution with the ReLU and pooling that follow it, after swapping these two in the graph."""
    kept = [convolution]
    while (follower := _only_follower(graph, kept[-1])) is not None and follower.op_type in _FOLLOWERS:
        kept.append(follower)
    for first, second in itertools.pairwise(kept):
        if (first.op_type, second.op_type) == ("Relu", "MaxPool"):
            rectifier, pooling = onnx.NodeProto(), onnx.NodeProto()
            rectifier.CopyFrom(first)
            pooling.CopyFrom(second)
            pooling.input[0], rectifier.output[0] = first.input[0], second.output[0]
            pooling.output[0] = rectifier.input[0] = f"{second.output[0]}_raw"
            first.CopyFrom(pooling)
            second.CopyFrom(rectifier)
    return kept


def _only_follower(graph: onnx.GraphProto, node: onnx.NodeProto) -> onnx.NodeProto | None:
    followers = [other for other in graph.node if node.output[0] in other.input]
    return followers[0] if len(followers) == 1 else None


class _Reader(CalibrationDataReader):  # type: ignore[misc] # onnxruntime has no types
    """Feeds the images to the calibration in batches, of which it is told the range, so that it keeps only these."""

    def __init__(self, name: str, pictures: Pixels) -> None:
        self._name = name
        # ONNX Runtime's percentile calibration requires batches of equal size.
        self._batches = np.split(pictures, len(pictures) // math.gcd(len(pictures), _BATCH))
        self._next = self._end = 0

    def __len__(self) -> int:
        return len(self._batches)

    def set_range(self, start_index: int, end_index: int) -> None:
        """Selects the batches that are returned next."""
        self._next, self._end = start_index, end_index

    def get_next(self) -> dict[str, Pixels] | None:
        """Returns the next batch, or None after the last of the range."""
        if self._next == self._end:
            return None
        self._next += 1
        return {self._name: self._batches[self._next - 1]}
