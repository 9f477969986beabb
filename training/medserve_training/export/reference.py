"""Reference rows: synthetic input with PyTorch's output, with which a server checks an execution provider."""

import math
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from medserve_proto.v1 import manifest_pb2 as pb

Pixels = NDArray[np.uint8]
Floats = NDArray[np.float32]
# Minimum height and width of the reference rows of segmentation models.
_REFERENCE_SIDE = 32
# See ReferenceRow.probabilities in the manifest.
_REFERENCE_STEP = 8


def reference_rows(model: nn.Module, manifest: pb.Manifest, seed: int) -> list[pb.ReferenceRow]:
    """Generates eight rows and computes PyTorch's output for them.

    Args:
        model: The model to be exported, on the CPU.
        manifest: Describes the input; for a risk model, it must contain the training ranges.
        seed: Seed of the random rows.
    """
    random = np.random.default_rng(seed)
    if manifest.WhichOneof("task") == "image_classification":
        size = manifest.image_classification.input
        channels = 3 if size.color_space == pb.COLOR_SPACE_RGB else 1
        pixels = made_up_images(size.height, size.width, channels, random)
        return [
            pb.ReferenceRow(pixels=row.tobytes(), probabilities=answer)
            for row, answer in zip(pixels, answers(model, pixels).tolist(), strict=True)
        ]
    if manifest.WhichOneof("task") == "image_segmentation":
        return _reference_tiles(model, manifest.image_segmentation.input, random)
    features = made_up_patients(manifest.patient_risk.features, random)
    return [
        pb.ReferenceRow(features=row, probabilities=answer)
        for row, answer in zip(features.tolist(), answers(model, features).tolist(), strict=True)
    ]


def _reference_tiles(
    model: nn.Module, size: pb.SegmentationInput, random: np.random.Generator
) -> list[pb.ReferenceRow]:
    """Generates small tiles, since the manifest contains them."""
    side = size.stride * math.ceil(_REFERENCE_SIDE / size.stride)
    pixels = made_up_images(side, side, 3 if size.color_space == pb.COLOR_SPACE_RGB else 1, random)
    return [
        pb.ReferenceRow(pixels=row.tobytes(), probabilities=answer, size=pb.MapSize(height=side, width=side))
        for row, answer in zip(pixels, _sampled(answers(model, pixels)).tolist(), strict=True)
    ]


def _sampled(maps: Floats) -> Floats:
    """Returns every eighth row and column of maps [n, labels, h, w] as rows, [n, values]."""
    return maps[:, :, ::_REFERENCE_STEP, ::_REFERENCE_STEP].reshape(len(maps), -1)


def reference_input(manifest: pb.Manifest) -> Pixels | Floats:
    """Returns the rows as the input tensor of the graph."""
    task = manifest.WhichOneof("task")
    if task == "patient_risk":
        return np.array([row.features for row in manifest.reference], dtype=np.float32)
    first = manifest.reference[0]
    size = manifest.image_classification.input if task == "image_classification" else first.size
    pixels = np.stack([np.frombuffer(row.pixels, dtype=np.uint8) for row in manifest.reference])
    return pixels.reshape(len(pixels), size.height, size.width, -1)


def reference_deviation(manifest: pb.Manifest, output: Floats) -> float:
    """Returns the largest absolute difference between the manifest's probabilities for the rows and `output`."""
    expected = np.array([row.probabilities for row in manifest.reference], dtype=np.float32)
    found = _sampled(output) if manifest.WhichOneof("task") == "image_segmentation" else output
    return float(np.abs(expected - found).max())


def made_up_images(height: int, width: int, channels: int, random: np.random.Generator) -> Pixels:
    """Returns noise, 3 smooth noises, 2 gradients, gray and a checkerboard, uint8 [8, height, width, channels]."""
    down, across = np.linspace(0, 255, height), np.linspace(0, 255, width)
    rows, columns = np.indices((height, width))
    cloudy = [_clouds(height, width, spread, random) for spread in (20, 40, 80)]
    planes = [
        random.integers(0, 256, (height, width)),
        *cloudy,
        np.broadcast_to(across, (height, width)),
        np.broadcast_to(down[:, np.newaxis], (height, width)),
        np.full((height, width), 128),
        np.where((rows // 4 + columns // 4) % 2, 192, 64),
    ]
    # Channels differ, so that a provider that swaps them is detected.
    shades = np.linspace(1, 0.5, channels)
    pixels = np.stack(planes)[..., np.newaxis] * shades
    return pixels.clip(0, 255).round().astype(np.uint8)


def _clouds(height: int, width: int, spread: float, random: np.random.Generator) -> NDArray[np.float64]:
    """Returns smooth gray values around 128: 5 x 5 random values, linearly interpolated."""
    coarse = 128 + spread * random.standard_normal((5, 5))
    places = np.arange(5)
    wide = np.stack([np.interp(np.linspace(0, 4, width), places, line) for line in coarse])
    return np.stack([np.interp(np.linspace(0, 4, height), places, line) for line in wide.T], axis=1)


def made_up_patients(features: Sequence[pb.Feature], random: np.random.Generator) -> Floats:
    """Returns patients within the training ranges, float32 [8, features]; four of them have missing optional values.

    Numbers are sampled uniformly on a logarithmic scale, since counts and concentrations are skewed to low values.
    """
    columns = [_made_up_covariate(feature, random) for feature in features]
    patients = np.stack(columns, axis=1).astype(np.float32)
    optional = np.array([feature.WhichOneof("missing") == "imputed_as" for feature in features])
    # Three patients lack some optional values, the last one all.
    lost = random.random((4, len(features))) < np.array([0.3, 0.3, 0.6, 1.1])[:, np.newaxis]
    patients[4:][lost & optional] = np.nan
    return patients


def _made_up_covariate(feature: pb.Feature, random: np.random.Generator) -> NDArray[np.float64]:
    if feature.WhichOneof("kind") == "categorical":
        return random.integers(0, len(feature.categorical.names), 8).astype(np.float64)
    low, high = feature.numeric.training_min, feature.numeric.training_max
    values: NDArray[np.float64] = low + np.expm1(random.random(8) * np.log1p(high - low))
    return values.round() if feature.numeric.integer else values


@torch.no_grad()
def answers(model: nn.Module, rows: Pixels | Floats) -> Floats:
    """Returns PyTorch's first output for the rows, computed in batches."""
    model.eval()
    outputs = [model(batch) for batch in torch.split(torch.from_numpy(rows), 256)]
    first = [output if isinstance(output, torch.Tensor) else output[0] for output in outputs]
    result: Floats = torch.cat(first).numpy()
    return result
