"""Quantizes an image model to 8-bit integers, and measures the loss and the speedup."""

import hashlib
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np

from medserve_proto.v1 import manifest_pb2 as pb
from medserve_training.errors import UserError
from medserve_training.export.checksums import update_checksum
from medserve_training.export.measure_images import validation_metric
from medserve_training.export.onnx_file import save
from medserve_training.export.quantization.convert import convert
from medserve_training.export.quantization.original import MADE_UP, Original
from medserve_training.export.speed import ROUNDS, speedup
from medserve_training.staging import require_writable, staged

SPEEDUP_BATCH = 32
# The server's default limit of the deviation on the reference rows, above which it rejects a model.
SERVER_DEVIATION = 0.005
# Percentage of an activation's values that the range of its 256 steps covers; 100 is minimum to maximum.
_PERCENTILES = (100, 99.9999, 99.999, 99.99)


@dataclass(frozen=True)
class Result:
    """The result of the conversion; `speedups` are by batch size."""

    quantization: pb.Quantization
    reference_deviation: float
    speedups: dict[int, float]


def quantize(original: Original, output: Path, rows: int, largest_loss: float, seed: int) -> Result:
    """Quantizes a model, evaluates it and writes it with its manifest.

    Of several calibrations, the one with the smallest deviation from PyTorch on the reference rows is chosen; the loss
    is measured on validation, which is not used for the choice.

    Args:
        original: The model.
        output: The ONNX file to write.
        rows: Number of training images for calibration, or of crops of them for segmentation.
        largest_loss: Maximum decrease of the metric on validation.
        seed: Seed of the choice of training images, and of the synthetic images added to them.

    Raises:
        UserError: The graph cannot be converted or the loss is too large; no file is written.
    """
    require_writable(output.parent)
    pictures = original.pictures(rows, seed)
    candidates = [convert(original.graph, original.manifest, pictures, percentile) for percentile in _PERCENTILES]
    best = min(candidates, key=lambda candidate: candidate.reference_deviation)
    content = best.graph.SerializeToString()
    before, probabilities_before = original.measure(original.content)
    manifest, probabilities_after = original.measure(content)
    # The first metric is that by which models are compared: AUROC, average precision or the Dice coefficient.
    metric = manifest.evaluations[0].metrics[0].name
    stated, found = validation_metric(before, metric), validation_metric(manifest, metric)
    if not stated - found <= largest_loss:
        raise UserError(
            f"{metric} on validation falls from {stated:.4f} to {found:.4f}, by {stated - found:.4f}, which is more "
            f"than --max-loss {largest_loss:g}: {output} was not written",
        )
    speedups = {size: speedup(original.content, content, pictures[:size]) for size in (1, SPEEDUP_BATCH)}
    manifest.name = f"{original.manifest.name}-int8"
    manifest.quantization.CopyFrom(
        pb.Quantization(
            method=_method(best.percentile, len(pictures) - MADE_UP),
            source_sha256=hashlib.sha256(original.content).hexdigest(),
            metric=metric,
            metric_before=stated,
            metric_after=found,
            max_deviation=max(
                float(np.abs(one - other).max())
                for one, other in zip(probabilities_before, probabilities_after, strict=True)
            ),
            speedup=speedups[SPEEDUP_BATCH],
            speedup_batch=SPEEDUP_BATCH,
        ),
    )
    with staged() as stage:
        file = save(best.graph, manifest, output, stage)
        update_checksum(output, file.read_bytes(), stage)
    return Result(manifest.quantization, best.reference_deviation, speedups)


def _method(percentile: float, training_rows: int) -> str:
    ranges = "smallest-to-largest" if percentile == 100 else f"percentile {percentile:g}"
    return (
        f"static, QDQ, convolutions after the first, uint8 activations, 7-bit weights by channel, {ranges} "
        f"calibration on {training_rows} training and {MADE_UP} made-up rows, "
        f"onnxruntime {version('onnxruntime')}; speed-up: medians of {ROUNDS} alternating rounds"
    )
