"""Quantizes the convolutions of an image classifier to 8-bit integers, and measures the loss and the speedup.

Static quantization with ONNX Runtime's tools, with QuantizeLinear and DequantizeLinear around each operator (QDQ). The
expensive operators are converted: all convolutions except the first, and the poolings between them. The first
convolution stays in float, since an integer convolution of a single input channel is slower; so do standardization, the
dense layers and the softmax, so that the interface of the file does not change.
"""

import contextlib
import hashlib
import io
import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import onnx
from numpy.typing import NDArray
from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.calibrate import CalibrationDataReader

from medserve_proto.v1 import manifest_pb2 as pb
from medserve_training.data.data_checks import check_images
from medserve_training.data.image_data import load_images
from medserve_training.data.splits import Images, Splits, fingerprint
from medserve_training.errors import UserError
from medserve_training.export.checksums import update_checksum
from medserve_training.export.inference import open_session, predict
from medserve_training.export.manifest import read_manifest
from medserve_training.export.measure_images import measure_images, validation_metric
from medserve_training.export.onnx_file import save, strip
from medserve_training.export.origin import Source, recipe_of, verify_training_data
from medserve_training.export.reference import made_up_images, reference_deviation, reference_input
from medserve_training.export.speed import ROUNDS, speedup
from medserve_training.recipes.recipe import ImageTask
from medserve_training.staging import require_writable, staged

SPEEDUP_BATCH = 32
# The server's default limit of the deviation on the reference rows, above which it rejects a model.
SERVER_DEVIATION = 0.005
# Percentage of an activation's values that the range of its 256 steps covers; 100 is minimum to maximum.
_PERCENTILES = (100, 99.9999, 99.999, 99.99)
_MADE_UP_SETS = 8
_FOLLOWERS = ("Relu", "MaxPool")

Pixels = NDArray[np.uint8]


@dataclass(frozen=True)
class Original:
    """The model to be converted: its file, graph, manifest and data."""

    content: bytes
    graph: onnx.ModelProto
    manifest: pb.Manifest
    data: Splits[Images]


@dataclass(frozen=True)
class Candidate:
    """The graph of one calibration, and its largest deviation from PyTorch on the reference rows."""

    percentile: float
    graph: onnx.ModelProto
    reference_deviation: float


@dataclass(frozen=True)
class Result:
    """The result of the conversion; `speedups` are by batch size."""

    quantization: pb.Quantization
    reference_deviation: float
    speedups: dict[int, float]


def load_original(source: Source) -> Original:
    """Reads a model and its data.

    Args:
        source: The model file and its data.

    Raises:
        UserError: A file is missing or corrupt, the data differs, or quantization does not benefit the model.
    """
    path = source.path
    manifest = read_manifest(path)
    if manifest.HasField("quantization"):
        raise UserError(f"{path} is already quantized; start from the file from which it was made")
    if manifest.WhichOneof("task") != "image_classification":
        raise UserError(
            f"{path} is a patient-risk model: its layers are so small that integers make it slower for one patient at "
            "a time; serve it unchanged",
        )
    if not manifest.reference:
        raise UserError(f"{path} has no reference rows in its manifest; fit the recipe again with this version")
    recipe = recipe_of(source, manifest)
    if not isinstance(recipe.task, ImageTask):
        raise UserError(f"{path} is an image classifier, but the recipe {recipe.name} is not; correct --recipe")
    images = load_images(recipe, recipe.task, source.data_dir)
    verify_training_data(manifest, fingerprint(images.train))
    check_images(images, recipe, recipe.task)
    content = path.read_bytes()
    return Original(content, onnx.load_from_string(content), manifest, images)


def quantize(original: Original, output: Path, rows: int, largest_loss: float, seed: int) -> Result:
    """Quantizes a model, evaluates it and writes it with its manifest.

    Of several calibrations, the one with the smallest deviation from PyTorch on the reference rows is chosen; the loss
    is measured on validation, which is not used for the choice.

    Args:
        original: The model.
        output: The ONNX file to write.
        rows: Number of training images for calibration.
        largest_loss: Maximum decrease of the metric on validation.
        seed: Seed of the choice of training images, and of the synthetic images added to them.

    Raises:
        UserError: The graph cannot be converted or the loss is too large; no file is written.
    """
    require_writable(output.parent)
    train = original.data.train.pixels
    pictures = calibration_pictures(train, rows, seed)
    candidates = [_convert(original, pictures, percentile) for percentile in _PERCENTILES]
    best = min(candidates, key=lambda candidate: candidate.reference_deviation)
    content = best.graph.SerializeToString()
    before, probabilities_before = _measured(original, original.content)
    manifest, probabilities_after = _measured(original, content)
    metric = "auroc" if len(manifest.image_classification.labels) == 2 else "auroc_macro"
    stated, found = validation_metric(before, metric), validation_metric(manifest, metric)
    if not stated - found <= largest_loss:
        raise UserError(
            f"{metric} on validation falls from {stated:.4f} to {found:.4f}, by {stated - found:.4f}, which is more "
            f"than --max-loss {largest_loss:g}: {output} was not written",
        )
    speedups = {size: speedup(original.content, content, train[:size]) for size in (1, SPEEDUP_BATCH)}
    manifest.name = f"{original.manifest.name}-int8"
    manifest.quantization.CopyFrom(
        pb.Quantization(
            method=_method(best.percentile, min(rows, len(train)), len(pictures)),
            source_sha256=hashlib.sha256(original.content).hexdigest(),
            metric=metric,
            metric_before=stated,
            metric_after=found,
            max_deviation=float(np.abs(probabilities_before - probabilities_after).max()),
            speedup=speedups[SPEEDUP_BATCH],
            speedup_batch=SPEEDUP_BATCH,
        ),
    )
    with staged() as stage:
        file = save(best.graph, manifest, output, stage)
        update_checksum(output, file.read_bytes(), stage)
    return Result(manifest.quantization, best.reference_deviation, speedups)


def calibration_pictures(train: Pixels, rows: int, seed: int) -> Pixels:
    """Returns training images and synthetic ones of a wider range, without which noise would saturate the integers."""
    random = np.random.default_rng([seed, 1])
    chosen = random.choice(len(train), min(rows, len(train)), replace=False)
    height, width, channels = train.shape[1:]
    made_up = [made_up_images(height, width, channels, random) for _ in range(_MADE_UP_SETS)]
    return np.concatenate([train[np.sort(chosen)], *made_up])


def _convert(original: Original, pictures: Pixels, percentile: float) -> Candidate:
    graph = onnx.ModelProto()
    graph.CopyFrom(original.graph)
    kept = keep_the_first_convolution(graph.graph)
    # Marks the graph as preprocessed.
    onnx.helper.set_model_props(graph, {"onnx.quant.pre_process": "onnxruntime.quant"})
    ranges = CalibrationMethod.MinMax if percentile == 100 else CalibrationMethod.Percentile
    with TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        path = Path(folder) / "model.onnx"
        quantize_static(
            graph,
            path,
            _Reader(original.graph.graph.input[0].name, pictures),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=["Conv", *_FOLLOWERS],
            nodes_to_exclude=kept,
            per_channel=True,
            # With 7-bit weights, sums of two products cannot overflow on processors without VNNI.
            reduce_range=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            calibrate_method=ranges,
            extra_options={"CalibPercentile": percentile},
        )
        converted = strip(onnx.load(path))
    onnx.checker.check_model(converted, full_check=True)
    session = open_session(converted.SerializeToString())
    output = predict(session, reference_input(original.manifest))
    return Candidate(percentile, converted, reference_deviation(original.manifest, output))


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
    """Feeds the images to the calibration in batches."""

    def __init__(self, name: str, pictures: Pixels) -> None:
        # ONNX Runtime's percentile calibration requires batches of equal size.
        size = math.gcd(len(pictures), 32)
        self._feeds: Iterator[dict[str, Pixels]] = iter(
            [{name: pictures[start : start + size]} for start in range(0, len(pictures), size)],
        )

    def get_next(self) -> dict[str, Pixels] | None:
        """Returns the next batch, or None after the last."""
        return next(self._feeds, None)


def _measured(original: Original, model: bytes) -> tuple[pb.Manifest, NDArray[np.float64]]:
    """Returns the original's manifest with the figures of `model`, and the model's probabilities on validation."""
    manifest = pb.Manifest()
    manifest.CopyFrom(original.manifest)
    output = measure_images(manifest, open_session(model), original.data, ["validation"])
    return manifest, output["validation"]


def _method(percentile: float, training_rows: int, all_rows: int) -> str:
    ranges = "smallest-to-largest" if percentile == 100 else f"percentile {percentile:g}"
    return (
        f"static, QDQ, convolutions after the first, uint8 activations, 7-bit weights by channel, {ranges} "
        f"calibration on {training_rows} training and {all_rows - training_rows} made-up rows, "
        f"onnxruntime {version('onnxruntime')}; speed-up: medians of {ROUNDS} alternating rounds"
    )
