"""A variant of an image classifier whose convolutions compute in 8-bit integers, with what that costs and gains.

Static quantisation by ONNX Runtime's tools, as QuantizeLinear and DequantizeLinear around each operator (QDQ). What
takes the time is converted: all convolutions but the first and the poolings between them. The first convolution stays
float, as it is slower with one input channel of integers; so do standardisation, the dense layers and the softmax, so
that the contract of the file is that of its source.
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
from medserve_training.data.splits import Images, Splits
from medserve_training.errors import UserError
from medserve_training.export.checksums import list_anew
from medserve_training.export.inference import open_session, predict
from medserve_training.export.manifest import read_manifest
from medserve_training.export.measure_images import measure_images, validation_metric
from medserve_training.export.onnx_file import save, strip
from medserve_training.export.origin import Source, hold_to_training_data, recipe_of
from medserve_training.export.reference import made_up_images, reference_deviation, reference_input
from medserve_training.export.speed import ROUNDS, speedup
from medserve_training.recipes.recipe import ImageTask
from medserve_training.staging import require_writable, staged

SPEEDUP_BATCH = 32
# Above this a server refuses a model unless it is told otherwise.
SERVER_DEVIATION = 0.005
# Shares of an activation's values, in percent, that its 256 steps have to reach; 100 is smallest to largest.
_PERCENTILES = (100, 99.9999, 99.999, 99.99)
_MADE_UP_SETS = 8
_FOLLOWERS = ("Relu", "MaxPool")

Pixels = NDArray[np.uint8]


@dataclass(frozen=True)
class Original:
    """The model that is converted: its file, graph, manifest and data."""

    content: bytes
    graph: onnx.ModelProto
    manifest: pb.Manifest
    data: Splits[Images]


@dataclass(frozen=True)
class Candidate:
    """The graph that one calibration gave, and its largest deviation from PyTorch on the reference rows."""

    percentile: float
    graph: onnx.ModelProto
    reference_deviation: float


@dataclass(frozen=True)
class Result:
    """What the conversion came to; `speedups` by batch size."""

    quantization: pb.Quantization
    reference_deviation: float
    speedups: dict[int, float]


def load_original(source: Source) -> Original:
    """Reads a model and its data.

    Args:
        source: The model file and its data.

    Raises:
        UserError: A file is missing or broken, the data is another, or the model is none that gains by conversion.
    """
    path = source.path
    manifest = read_manifest(path)
    if manifest.HasField("quantization"):
        raise UserError(f"{path} is quantised already; start from the file that it was made from")
    if manifest.WhichOneof("task") != "image_classification":
        raise UserError(
            f"{path} is a patient-risk model: its layers are so small that integers make it slower for one patient at "
            "a time; serve it as it is",
        )
    if not manifest.reference:
        raise UserError(f"{path} has no reference rows in its manifest; fit the recipe again with this version")
    recipe = recipe_of(source, manifest)
    if not isinstance(recipe.task, ImageTask):
        raise UserError(f"{path} is an image classifier, but the recipe {recipe.name} is none; correct --recipe")
    images = load_images(recipe, recipe.task, source.data_dir)
    hold_to_training_data(manifest, images.train)
    check_images(images, recipe, recipe.task)
    content = path.read_bytes()
    return Original(content, onnx.load_from_string(content), manifest, images)


def quantize(original: Original, output: Path, rows: int, largest_loss: float, seed: int) -> Result:
    """Converts a model, measures it and writes it with its manifest.

    Of several calibrations the one with the smallest deviation from PyTorch on the reference rows is taken; the loss
    is measured on validation, which takes no part in the choice.

    Args:
        original: The model.
        output: The ONNX file to write.
        rows: Number of training pictures to calibrate on.
        largest_loss: Of the metric on validation.
        seed: Decides which pictures, and the made-up ones beside them.

    Raises:
        UserError: The graph can't be converted or the loss is too large; no file is written then.
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
            f"{metric} on validation falls from {stated:.4f} to {found:.4f}, by {stated - found:.4f} and so by more "
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
        list_anew(output, file.read_bytes(), stage)
    return Result(manifest.quantization, best.reference_deviation, speedups)


def calibration_pictures(train: Pixels, rows: int, seed: int) -> Pixels:
    """Training pictures, and made-up ones, which reach further: without them noise runs out of the integers' range."""
    random = np.random.default_rng([seed, 1])
    chosen = random.choice(len(train), min(rows, len(train)), replace=False)
    height, width, channels = train.shape[1:]
    made_up = [made_up_images(height, width, channels, random) for _ in range(_MADE_UP_SETS)]
    return np.concatenate([train[np.sort(chosen)], *made_up])


def _convert(original: Original, pictures: Pixels, percentile: float) -> Candidate:
    graph = onnx.ModelProto()
    graph.CopyFrom(original.graph)
    kept = keep_the_first_convolution(graph.graph)
    # Tells the tools that the graph needs no preparation.
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
            # 7-bit weights: products of pairs can't overflow on processors without VNNI.
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
    """Names of the nodes that stay float: each member's first convolution with its rectifier and pooling.

    So do convolutions of single values, as squeeze-and-excitation has: there is nothing to gain. A pooling changes
    places with the rectifier before it, which changes no result: ONNX Runtime otherwise moves the conversion to
    integers before the pooling and pools integers thirty times slower than floats.

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
    """A convolution with the rectifier and pooling behind it, these two in the other order."""
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
    """Hands the pictures to the calibration, in batches."""

    def __init__(self, name: str, pictures: Pixels) -> None:
        # ONNX Runtime's percentiles take batches of one size only.
        size = math.gcd(len(pictures), 32)
        self._feeds: Iterator[dict[str, Pixels]] = iter(
            [{name: pictures[start : start + size]} for start in range(0, len(pictures), size)],
        )

    def get_next(self) -> dict[str, Pixels] | None:
        """The next batch; None after the last."""
        return next(self._feeds, None)


def _measured(original: Original, model: bytes) -> tuple[pb.Manifest, NDArray[np.float64]]:
    """The original's manifest with a model's own figures, and the model's probabilities on validation."""
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
