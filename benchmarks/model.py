"""The model under test: the articles' CNN, which is very small, so that the server's overhead dominates.

The overhead does not depend on the weights, so they are random and no data is needed.
"""

import subprocess
import sys

from benchmarks.servers import MODEL, ROOT


def make_model() -> None:
    """Writes the model if it is missing; in a separate process, so that PyTorch is not imported in this one."""
    if not MODEL.is_file():
        subprocess.run([sys.executable, "-m", "benchmarks.model"], cwd=ROOT, check=True)


def _write() -> None:
    import numpy as np  # noqa: PLC0415 - imported only in the separate process
    import torch  # noqa: PLC0415

    from medserve_training.data.splits import Images  # noqa: PLC0415
    from medserve_training.export.manifest import image_manifest  # noqa: PLC0415
    from medserve_training.export.onnx_file import to_onnx, write  # noqa: PLC0415
    from medserve_training.export.reference import reference_rows  # noqa: PLC0415
    from medserve_training.networks.images.classifier import ImageClassifier, ImageGraph, image_network  # noqa: PLC0415
    from medserve_training.recipes.network_settings import BaselineCnn  # noqa: PLC0415
    from medserve_training.recipes.recipe import ImageTask, load_recipe  # noqa: PLC0415
    from medserve_training.staging import staged  # noqa: PLC0415

    recipe = load_recipe("chest-xray-article")
    task = recipe.task
    if not isinstance(task, ImageTask) or not isinstance(recipe.network, BaselineCnn):
        raise TypeError(f"{recipe.name} is not an image recipe with the articles' CNN")
    torch.manual_seed(0)
    network = image_network(recipe.network, (task.channels, task.height, task.width), len(task.labels))
    model = ImageGraph([ImageClassifier(network, np.full(task.channels, 128.0), np.full(task.channels, 64.0))])
    pixels = np.zeros((2, task.height, task.width, task.channels), np.uint8)
    graph = to_onnx(model, torch.from_numpy(pixels), model.names)
    manifest = image_manifest(recipe, task, Images(pixels, np.array([0, 1])), None, graph.graph)
    manifest.name = MODEL.parent.parent.name
    manifest.description = "Random weights, for measuring servers."
    manifest.reference.extend(reference_rows(model, manifest, recipe.seed))
    with staged() as stage:
        write(graph, manifest, MODEL, stage)


if __name__ == "__main__":
    _write()
