"""Trains a segmentation recipe and writes an ONNX file, metrics and plots."""

from functools import partial
from typing import cast

import torch
from lightning_fabric import Fabric
from rich.console import Console

from medserve_training.data.masks import MaskedImages
from medserve_training.data.splits import Splits
from medserve_training.networks.segmentation.segmenter import Segmenter
from medserve_training.recipes.network_settings import UNet
from medserve_training.recipes.recipe import Recipe
from medserve_training.recipes.segmentation_settings import Crops, SegmentationTask
from medserve_training.training.segmentation.crops import CentralCrops, RandomCrops
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
