import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from filelock import FileLock
from lightning_fabric import Fabric
from rich.console import Console

from medserve_training.recipes.recipe import load_recipe
from medserve_training.run_paths import RunPaths
from medserve_training.training.fit import fit
from samples.made_up_masks import write_disks, write_heads

Fit = Callable[..., Path]

DATE = 86400
"""SOURCE_DATE_EPOCH of the models that tests share: 1970-01-02."""


@pytest.fixture(autouse=True)
def seed() -> None:
    """Seeds the random generators before every test."""
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def fit_into() -> Fit:
    """Trains a packaged recipe into a folder and returns the path of its ONNX file."""

    def run(folder: Path, recipe: str, *overrides: str) -> Path:
        paths = RunPaths(Path(), folder / "model.onnx", folder / "report")
        fit(load_recipe(recipe, overrides), paths, Fabric(accelerator="cpu", devices=1), Console(quiet=True))
        return paths.model

    return run


@pytest.fixture(scope="session")
def shared_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder shared by all pytest-xdist workers of a run."""
    own = tmp_path_factory.getbasetemp()
    return own.parent if "PYTEST_XDIST_WORKER" in os.environ else own


@pytest.fixture(scope="session")
def fit_once(fit_into: Fit, shared_folder: Path) -> Fit:
    """Runs `fit_into` in the first worker that requests it; the others reuse its files."""

    def run(name: str, recipe: str, *overrides: str) -> Path:
        folder, unfinished = shared_folder / name, shared_folder / f"{name}-unfinished"
        with FileLock(shared_folder / f"{name}.lock"):
            if not folder.exists():
                with pytest.MonkeyPatch.context() as patch:
                    patch.setenv("SOURCE_DATE_EPOCH", str(DATE))
                    fit_into(unfinished, recipe, *overrides)
                unfinished.rename(folder)
        return folder / "model.onnx"

    return run


@pytest.fixture(scope="session")
def digits_model(fit_once: Fit) -> Path:
    return fit_once("digits", "digits", "training.epochs=1")


@pytest.fixture(scope="session")
def risk_model(fit_once: Fit) -> Path:
    return fit_once("risk", "breast-cancer-risk", "training.epochs=3", "training.members=2")


@pytest.fixture(scope="session")
def disks(shared_folder: Path) -> Path:
    """The recipe of images of disks, some of which touch."""
    with FileLock(shared_folder / "disks-data.lock"):
        recipe = shared_folder / "disks-data" / "recipe.toml"
        return recipe if recipe.exists() else write_disks(recipe.parent)


@pytest.fixture(scope="session")
def heads(shared_folder: Path) -> Path:
    """The recipe of images of an ellipse, whose circumference is measured."""
    with FileLock(shared_folder / "heads-data.lock"):
        recipe = shared_folder / "heads-data" / "recipe.toml"
        return recipe if recipe.exists() else write_heads(recipe.parent)


@pytest.fixture(scope="session")
def disks_model(fit_once: Fit, disks: Path) -> Path:
    return fit_once("disks", str(disks))


@pytest.fixture(scope="session")
def heads_model(fit_once: Fit, heads: Path) -> Path:
    return fit_once("heads", str(heads))


@pytest.fixture(scope="session")
def pneumonia_folder() -> Path:
    """The folder of PneumoniaMNIST; skips if there is none."""
    folder = Path(os.environ.get("MEDSERVE_DATA", "data"))
    if not (folder / "pneumoniamnist.npz").is_file():
        pytest.skip(f"{folder} has no pneumoniamnist.npz; MEDSERVE_DATA names the folder")
    return folder
