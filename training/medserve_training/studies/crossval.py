"""Repeated stratified cross-validation of survival recipes and baselines, and validation on an external cohort."""

import signal
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch
from lightning_fabric import Fabric
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track
from sklearn.model_selection import RepeatedStratifiedKFold

from medserve_training.data.patient_data import load_cohort
from medserve_training.data.schema import Schema
from medserve_training.data.splits import OUTCOMES, Patients, Splits, cut, take
from medserve_training.errors import UserError
from medserve_training.recipes.recipe import Recipe, SurvivalTask
from medserve_training.studies.external_cohort import load_external
from medserve_training.studies.fold_checks import check_fold
from medserve_training.studies.survival_baselines import BASELINES
from medserve_training.training.train_risk import train_survival

Floats = NDArray[np.float64]
Index = NDArray[np.intp]


@dataclass(frozen=True)
class Plan:
    """Number of repeats, folds and parallel processes, and the seed of the folds."""

    repeats: int
    folds: int
    jobs: int
    seed: int = 0


@dataclass(frozen=True)
class Predictions:
    """Out-of-sample predictions of survival.

    Attributes:
        task: Specifies times and horizons.
        patients: The cohort of the predictions.
        folds: Indices of the test patients of each fold, repeat by repeat.
        survival: Survival functions of each fold, [n, curve times], by model.
        outside: Whether the models were trained on another cohort; there is then a single fold of all patients.
    """

    task: SurvivalTask
    patients: Patients
    folds: list[Index]
    survival: dict[str, list[Floats]]
    outside: bool = False


def cross_validate(recipes: Sequence[Recipe], plan: Plan, console: Console) -> Predictions:
    """Runs repeated k-fold cross-validation of every recipe and every baseline.

    All parameters are fitted inside the training folds: imputation, encoding, standardization, weights.

    Args:
        recipes: Survival recipes with the same data and times.
        plan: Repeats, folds and processes.
        console: Receives progress.

    Raises:
        UserError: A recipe is not a survival recipe, the recipes are not comparable, or there are too few patients.
    """
    task = _common_task(recipes)
    patients, schema = load_cohort(recipes[0])
    for what, count in zip(OUTCOMES, np.bincount(patients.events, minlength=2), strict=True):
        if 0 < count < plan.folds:
            raise UserError(
                f"{recipes[0].data.spec}: too few patients {what}: {count}, with --folds {plan.folds}; add patients or "
                "choose fewer folds"
            )
    splitter = RepeatedStratifiedKFold(n_splits=plan.folds, n_repeats=plan.repeats, random_state=plan.seed)
    folds = [(np.sort(train), np.sort(test)) for train, test in splitter.split(patients.features, patients.events)]
    for number, (train, test) in enumerate(folds):
        name = f"{recipes[0].data.spec}, repeat {number // plan.folds + 1}, fold {number % plan.folds + 1}"
        check_fold(take(patients, train), take(patients, test), task, schema, recipes[0].seed, name)
    work = partial(_predict_fold, recipes, task, patients, schema)
    with ProcessPoolExecutor(plan.jobs, get_context("spawn"), _start_worker) as pool:
        done = pool.map(work, folds)
        results = list(track(done, "folds", len(folds), console=console, disable=not console.is_terminal))
    survival = {name: [result[name] for result in results] for name in results[0]}
    return Predictions(task, patients, [test for _, test in folds], survival)


def _start_worker() -> None:
    torch.set_num_threads(1)
    # Interrupts are handled by the parent process.
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def predict_external(recipes: Sequence[Recipe], data_dir: Path) -> Predictions:
    """Trains every recipe and every baseline on node-positive patients of Rotterdam, and predicts GBSG.

    Args:
        recipes: As for `cross_validate`.
        data_dir: Folder of rotterdam.csv.

    Raises:
        UserError: The file is missing, or the recipes are not comparable.
    """
    task = _common_task(recipes)
    train, test, schema = load_external(data_dir)
    check_fold(train, test, task, schema, recipes[0].seed, "rotterdam to gbsg")
    survival = {name: [curves] for name, curves in _predict(recipes, task, train, test, schema)}
    return Predictions(task, test, [np.arange(len(test.times))], survival, outside=True)


def _common_task(recipes: Sequence[Recipe]) -> SurvivalTask:
    tasks = [recipe.task for recipe in recipes if isinstance(recipe.task, SurvivalTask)]
    if len(tasks) < len(recipes):
        raise UserError(
            "crossval requires recipes with the task 'survival'; for the task 'status', use the command article-risk"
        )
    if (
        len({(recipe.data.spec, task.curve_times, task.horizons) for recipe, task in zip(recipes, tasks, strict=True)})
        > 1
    ):
        raise UserError("these recipes differ in data, times or horizons, so their figures cannot be compared")
    return tasks[0]


def _predict_fold(
    recipes: Sequence[Recipe], task: SurvivalTask, patients: Patients, schema: Schema, fold: tuple[Index, Index]
) -> dict[str, Floats]:
    train, test = (take(patients, index) for index in fold)
    return dict(_predict(recipes, task, train, test, schema))


def _predict(
    recipes: Sequence[Recipe], task: SurvivalTask, train: Patients, test: Patients, schema: Schema
) -> Iterator[tuple[str, Floats]]:
    for recipe in recipes:
        yield recipe.name, _network(recipe, task, train, test, schema)
    for name, baseline in BASELINES.items():
        try:
            curves = baseline(train, test, schema, task.curve_times, recipes[0].seed)
        except (np.linalg.LinAlgError, ArithmeticError, ValueError) as error:
            raise UserError(
                f"the baseline {name!r} cannot be fitted ({error}); leave out covariates that are determined by others"
            ) from error
        yield name, curves


@torch.no_grad()
def _curves(model: torch.nn.Module, rows: Patients) -> Floats:
    survival: Floats = model.eval()(torch.from_numpy(rows.features))[0].double().numpy()
    return survival


def _network(
    recipe: Recipe,
    task: SurvivalTask,
    train: Patients,
    test: Patients,
    schema: Schema,
) -> Floats:
    """Returns the survival functions of the test patients by a recipe's network, [n, curve times]."""
    # A validation split is only needed for early stopping; it is then split off from the training patients.
    early = recipe.training.patience is not None
    data = (
        cut({"train": train, "test": test}, recipe.split, recipe.seed, OUTCOMES)
        if early
        else Splits(train, train, test)
    )
    fabric = Fabric(accelerator="cpu", devices=1)
    model, _ = train_survival(recipe, task, data, schema, fabric, Console(quiet=True))
    return _curves(model, test)
