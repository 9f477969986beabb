"""From a recipe to an ONNX file, a metrics file and plots."""

from pathlib import Path

from lightning_fabric import Fabric
from rich.console import Console

from medserve_training.data.data_checks import check_images, check_patients
from medserve_training.data.image_data import load_images
from medserve_training.data.patient_data import load_patients
from medserve_training.recipes.recipe import ImageTask, Recipe, StatusTask, SurvivalTask
from medserve_training.run_paths import RunPaths
from medserve_training.staging import require_writable
from medserve_training.training.fit_images import fit_images
from medserve_training.training.fit_risk import fit_status, fit_survival


def check_data(recipe: Recipe, data_dir: Path) -> None:
    """Loads the data of a recipe, and checks that it is enough to train on.

    Raises:
        UserError: Data does not fit or is too little.
    """
    if isinstance(recipe.task, ImageTask):
        check_images(load_images(recipe, recipe.task, data_dir), recipe, recipe.task)
    else:
        data, schema = load_patients(recipe)
        check_patients(data, recipe, schema)


def fit(recipe: Recipe, paths: RunPaths, fabric: Fabric, console: Console) -> dict[str, float]:
    """Trains a recipe and writes model (unless the task is a mere reproduction), metrics and plots.

    Args:
        recipe: What to train.
        paths: Where from and where to.
        fabric: Already launched; only its first process writes.
        console: For progress.

    Returns:
        The figures, by name; empty in every process but the first.

    Raises:
        UserError: Data does not fit or is too little, or PyTorch and ONNX Runtime disagree; no file is written then.
    """
    for folder in (paths.report, paths.model.parent):
        require_writable(folder)
    match recipe.task:
        case ImageTask() as task:
            return fit_images(recipe, task, paths, fabric, console)
        case SurvivalTask() as task:
            return fit_survival(recipe, task, paths, fabric, console)
        case StatusTask():
            return fit_status(recipe, paths, fabric, console)
