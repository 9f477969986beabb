"""From an image recipe to an ONNX file, a metrics file and plots."""

from typing import cast

import numpy as np
from lightning_fabric import Fabric
from rich.console import Console

from medserve_training.classification_plots import plot_classification
from medserve_training.export import export, write
from medserve_training.image_data import load_images
from medserve_training.manifest import figures, image_manifest
from medserve_training.measure import measure_images
from medserve_training.network_settings import ImageNetwork
from medserve_training.networks.image import ImageClassifier, ImageProbabilities, image_network
from medserve_training.places import Places
from medserve_training.recipe import ImageTask, Recipe
from medserve_training.reference import reference_rows
from medserve_training.report import write_report
from medserve_training.train import tensors, train_members


def fit_images(recipe: Recipe, task: ImageTask, places: Places, fabric: Fabric, console: Console) -> dict[str, float]:
    """Trains an image classifier; arguments and errors are those of `fit`."""
    data = load_images(recipe, task, places.data_dir)
    pixels = data.train.pixels
    mean, deviation = pixels.mean(axis=(0, 1, 2)), pixels.std(axis=(0, 1, 2))
    outputs = 1 if recipe.training.loss == "binary-cross-entropy" else len(task.labels)

    settings = cast("ImageNetwork", recipe.network)  # the recipe holds it to the task

    def build() -> ImageClassifier:
        network = image_network(settings, (task.channels, task.height, task.width), outputs)
        return ImageClassifier(network, mean, deviation)

    rows = data.map(lambda part: tensors(part.pixels, part.labels))
    members, history = train_members(build, rows, recipe.training, recipe.seed, fabric, console)
    if not fabric.is_global_zero:
        return {}
    model = ImageProbabilities(*members)
    graph, output, largest = export(model, data.map(lambda part: part.pixels), "probabilities")
    manifest = image_manifest(recipe, task, data.train)
    manifest.training.export_deviation = largest
    manifest.reference.extend(reference_rows(model, manifest, recipe.seed))
    measure_images(manifest, output, data)
    write(graph, manifest, places.model)
    points = {point.name: point.threshold for point in manifest.image_classification.operating_points}
    held_out = {
        "validation": (output.validation.astype(np.float64), data.validation.labels),
        "test": (output.test.astype(np.float64), data.test.labels),
    }
    write_report(recipe, history, figures(manifest), places.report)
    plot_classification(held_out, task.labels, points, places.report)
    return figures(manifest)
