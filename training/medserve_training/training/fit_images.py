"""Trains an image recipe and writes an ONNX file, metrics and plots."""

from collections.abc import Sequence
from functools import partial
from typing import cast

import numpy as np
import torch
from lightning_fabric import Fabric
from numpy.typing import NDArray
from rich.console import Console

from medserve_training.data.data_checks import check_images
from medserve_training.data.image_data import load_images
from medserve_training.data.splits import Images, Splits
from medserve_training.errors import UserError
from medserve_training.export.checksums import update_checksum
from medserve_training.export.inference import open_session
from medserve_training.export.manifest import figures, image_manifest
from medserve_training.export.measure_images import measure_images
from medserve_training.export.onnx_file import deviation as largest_difference
from medserve_training.export.onnx_file import to_onnx, write
from medserve_training.export.reference import answers, reference_rows
from medserve_training.metrics.calibration import choose_calibration
from medserve_training.networks.images.classifier import ImageClassifier, ImageGraph, image_network
from medserve_training.networks.images.image_network import ImageNetwork
from medserve_training.networks.novelty import Mahalanobis
from medserve_training.plots.classification import plot_classification
from medserve_training.recipes.network_settings import ImageNetworkSettings
from medserve_training.recipes.recipe import ImageTask, Recipe
from medserve_training.recipes.training_settings import Augmentation
from medserve_training.run_paths import RunPaths
from medserve_training.staging import staged
from medserve_training.training.augmentation import augment
from medserve_training.training.report import write_report
from medserve_training.training.train import Epoch, tensors, train_members

# Number of augmented copies of the validation images for choosing the calibration.
_HARDER_SETS = 4


def fit_images(recipe: Recipe, task: ImageTask, paths: RunPaths, fabric: Fabric, console: Console) -> dict[str, float]:
    """Trains an image classifier; arguments and errors as for `fit`."""
    data = load_images(recipe, task, paths.data_dir, console if fabric.is_global_zero else None)
    check_images(data, recipe, task)
    members, history = train_images(recipe, task, data, fabric, console)
    if not fabric.is_global_zero:
        return {}
    plain = ImageGraph(members)
    validation = answers(plain, data.validation.pixels).astype(np.float64)
    harder = _harder(plain, data.validation.pixels, recipe.augmentation, recipe.seed)
    methods = [method for method in recipe.calibration.methods if method != "isotonic" or len(task.labels) == 2]
    calibration, described, judged = choose_calibration(methods, validation, data.validation.labels, harder)
    novelty = [Mahalanobis(member.features(data.train.pixels), data.train.labels) for member in members]
    model = ImageGraph(members, calibration, novelty, recipe.export.feature_maps)
    graph = to_onnx(model, torch.from_numpy(data.train.pixels[:2]), model.names)
    manifest = image_manifest(recipe, task, data.train, described, graph.graph)
    output = measure_images(manifest, open_session(graph.SerializeToString()), data, ["validation"])
    manifest.training.export_deviation = largest_difference(model, output["validation"], data.validation.pixels)
    manifest.reference.extend(reference_rows(model, manifest, recipe.seed))
    worst = {f"calibration {entry.method}: worst error": entry.worst_error for entry in judged}
    predicted = {"validation": (output["validation"], data.validation.labels)}
    with staged() as stage:
        report = stage.folder(paths.report)
        write_report(recipe, history, figures(manifest) | worst, report)
        plot_classification(predicted, task.labels, manifest.image_classification.operating_points, report)
        file = write(graph, manifest, paths.model, stage)
        update_checksum(paths.model, file.read_bytes(), stage)
    return figures(manifest)


def train_images(
    recipe: Recipe, task: ImageTask, data: Splits[Images], fabric: Fabric, console: Console
) -> tuple[list[ImageClassifier], list[Epoch]]:
    """Trains the members of an image classifier and moves them to the CPU.

    Raises:
        UserError: The images are too small for the network, or a layer to export does not exist.
    """
    settings = cast("ImageNetworkSettings", recipe.network)  # the recipe has checked it against the task
    pixels = data.train.pixels
    mean, deviation = pixels.mean(axis=(0, 1, 2)), pixels.std(axis=(0, 1, 2))
    # A constant channel becomes 0.
    deviation = np.where(deviation > 0, deviation, 1)
    outputs = 1 if recipe.training.loss == "binary-cross-entropy" else len(task.labels)

    def build() -> ImageClassifier:
        network = image_network(settings, (task.channels, task.height, task.width), outputs)
        # On CPUs, convolutions train 25 % faster with channels last.
        network.to(memory_format=torch.channels_last)  # type: ignore[call-overload] # missing in its type stubs
        return ImageClassifier(network, mean, deviation)

    _check_layers(build().network, recipe.export.feature_maps, settings.name)
    change = None if recipe.augmentation is None else partial(augment, settings=recipe.augmentation)
    rows = data.map(lambda part: tensors(part.pixels, part.labels))
    return train_members(build, rows, recipe.training, recipe.seed, fabric, console, change)


def _harder(
    model: ImageGraph, pixels: NDArray[np.uint8], settings: Augmentation | None, seed: int
) -> list[NDArray[np.float64]]:
    """Returns probabilities for images augmented twice as strongly as in training; empty without augmentation."""
    if settings is None:
        return []
    doubled, rows = settings.doubled(), torch.from_numpy(pixels)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return [answers(model, augment(rows, doubled).numpy()).astype(np.float64) for _ in range(_HARDER_SETS)]


def _check_layers(network: ImageNetwork, wanted: Sequence[str], name: str) -> None:
    """Checks before training that the layers to export exist."""
    layers = [child for child, _ in network.trunk.named_children()]
    for layer in wanted:
        if layer not in layers:
            raise UserError(
                f"export.feature_maps: {layer!r} is not a layer of {name}; expected one of {', '.join(layers)}"
            )
