"""Trains a recipe and writes an ONNX file, metrics and plots."""

from pathlib import Path

from lightning_fabric import Fabric
from rich.console import Console

from medserve_training.data.data_checks import check_images, check_patients
from medserve_training.data.image_data import load_images
from medserve_training.data.masks.load import load_masks
from medserve_training.data.patient_data import load_patients
from medserve_training.recipes.recipe import ImageTask, Recipe, StatusTask, SurvivalTask
from medserve_training.recipes.segmentation_settings import SegmentationTask
from medserve_training.run_paths import RunPaths
from medserve_training.staging import require_writable
from medserve_training.training.fit_images import fit_images
from medserve_training.training.fit_risk import fit_status, fit_survival
from medserve_training.training.segmentation.fit import fit_segmentation


def check_data(recipe: Recipe, data_dir: Path) -> None:
    """Loads the data of a recipe, and checks that there is enough to train on.

    Raises:
        UserError: The data is invalid or too small.
    """
    if isinstance(recipe.task, ImageTask):
        check_images(load_images(recipe, recipe.task, data_dir), recipe, recipe.task)
    elif isinstance(recipe.task, SegmentationTask):
        load_masks(recipe, recipe.task, data_dir)
    else:
        data, schema = load_patients(recipe)
        check_patients(data, recipe, schema)


def fit(recipe: Recipe, paths: RunPaths, fabric: Fabric, console: Console) -> dict[str, float]:
    """Trains a recipe and writes the model (unless the task is only a reproduction), metrics and plots.

    Args:
        recipe: The recipe to train.
        paths: Input and output paths.
        fabric: A launched Fabric; only its first process writes.
        console: Receives progress.

    Returns:
        The figures, by name; empty in every process but the first.

    Raises:
        UserError: The data is invalid or too small, or PyTorch and ONNX Runtime disagree; no file is written.
    """
    for folder in (paths.report, paths.model.parent):
        require_writable(folder)
    match recipe.task:
        case ImageTask() as task:
            return fit_images(recipe, task, paths, fabric, console)
        case SegmentationTask() as task:
            return fit_segmentation(recipe, task, paths, fabric, console)
        case SurvivalTask() as task:
            return fit_survival(recipe, task, paths, fabric, console)
        case StatusTask():
            return fit_status(recipe, paths, fabric, console)
