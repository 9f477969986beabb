"""Trains a segmentation recipe and writes an ONNX file, metrics and plots."""

from collections.abc import Sequence
from functools import partial
from typing import cast

import numpy as np
import onnxruntime
import torch
from lightning_fabric import Fabric
from numpy.typing import NDArray
from rich.console import Console

from medserve_training.data.masks.crops import CentralCrops, RandomCrops
from medserve_training.data.masks.image import MaskedImages
from medserve_training.data.masks.load import load_masks
from medserve_training.data.splits import Splits
from medserve_training.export.checksums import update_checksum
from medserve_training.export.inference import open_session, predict
from medserve_training.export.manifest import figures
from medserve_training.export.onnx_file import deviation, to_onnx, write
from medserve_training.export.reference import reference_rows
from medserve_training.export.segmentation.describe import segmentation_manifest
from medserve_training.export.segmentation.maps import predict_splits
from medserve_training.export.segmentation.measure import measure_segmentation
from medserve_training.networks.segmentation.segmenter import SegmentationGraph, Segmenter
from medserve_training.plots.segmentation import plot_segmentation
from medserve_training.recipes.network_settings import UNet
from medserve_training.recipes.recipe import Recipe
from medserve_training.recipes.segmentation_settings import Crops, SegmentationTask
from medserve_training.run_paths import RunPaths
from medserve_training.staging import staged
from medserve_training.training.report import write_report
from medserve_training.training.segmentation.losses import combined
from medserve_training.training.train import Epoch, Rows, train_members


def train_segmentation(
    recipe: Recipe, task: SegmentationTask, data: Splits[MaskedImages], fabric: Fabric, console: Console
) -> tuple[list[Segmenter], list[Epoch]]:
    """Trains the members of a segmentation network and moves them to the CPU."""
    settings = cast("UNet", recipe.network)  # the recipe has checked both against the task
    crops = cast("Crops", recipe.crops)
    outputs = len(task.labels) * (2 if task.separates else 1)

    def build() -> Segmenter:
        network = Segmenter(settings, task.channels, outputs)
        # On CPUs, convolutions train 25 % faster with channels last.
        network.to(memory_format=torch.channels_last)  # type: ignore[call-overload] # missing in its type stubs
        return network

    signed = recipe.segmentation_loss.boundary > 0
    rows: Splits[Rows] = Splits(
        RandomCrops(data.train, crops, signed=signed),
        CentralCrops(data.validation, crops, signed=signed),
        CentralCrops(data.test, crops, signed=signed),
    )
    loss = partial(combined, recipe.segmentation_loss)
    return train_members(build, rows, recipe.training, recipe.seed, fabric, console, loss=loss)


def fit_segmentation(
    recipe: Recipe, task: SegmentationTask, paths: RunPaths, fabric: Fabric, console: Console
) -> dict[str, float]:
    """Trains a segmentation network; arguments and errors as for `fit`."""
    data = load_masks(recipe, task, paths.data_dir)
    members, history = train_segmentation(recipe, task, data, fabric, console)
    if not fabric.is_global_zero:
        return {}
    return export_segmentation(recipe, task, data, members, history, paths)


def export_segmentation(
    recipe: Recipe,
    task: SegmentationTask,
    data: Splits[MaskedImages],
    members: Sequence[Segmenter],
    history: Sequence[Epoch],
    paths: RunPaths,
) -> dict[str, float]:
    """Chooses thresholds on validation, and writes the model, metrics and plots.

    Returns:
        The figures, by name.
    """
    stride = cast("UNet", recipe.network).stride
    model = SegmentationGraph(members, len(task.labels))
    example = torch.zeros(2, 8 * stride, 6 * stride, task.channels, dtype=torch.uint8)
    graph = to_onnx(model, example, model.names, stride)
    manifest = segmentation_manifest(recipe, task, data.train, stride)
    session = open_session(graph.SerializeToString())
    maps = predict_splits(session, data, manifest.image_segmentation.input, ["validation"])
    measured = measure_segmentation(manifest, maps, data, task)
    manifest.training.export_deviation = _deviation(model, session, data.validation, stride)
    manifest.reference.extend(reference_rows(model, manifest, recipe.seed))
    with staged() as stage:
        report = stage.folder(paths.report)
        write_report(recipe, history, figures(manifest), report)
        plot_segmentation(measured, manifest, report)
        file = write(graph, manifest, paths.model, stage)
        update_checksum(paths.model, file.read_bytes(), stage)
    return figures(manifest)


def _deviation(
    model: SegmentationGraph, session: onnxruntime.InferenceSession, images: MaskedImages, stride: int
) -> float:
    """Returns the largest absolute difference between the probabilities of PyTorch and ONNX Runtime."""
    worst = 0.0
    for image in images:
        rows = _padded(image.pixels, stride)[None]
        worst = max(worst, deviation(model, predict(session, rows), rows))
    return worst


def _padded(pixels: NDArray[np.uint8], stride: int) -> NDArray[np.uint8]:
    """Extends an image to multiples of the stride, by reflection."""
    height, width = pixels.shape[:2]
    return np.pad(pixels, ((0, -height % stride), (0, -width % stride), (0, 0)), mode="reflect")
