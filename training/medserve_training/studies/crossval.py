"""Repeated stratified cross-validation of survival recipes beside baselines, and their test on an external cohort."""

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
    """How often, into how many parts, by how many processes at a time; the seed decides the parts."""

    repeats: int
    folds: int
    jobs: int
    seed: int = 0


@dataclass(frozen=True)
class Predictions:
    """Survival of patients by models that never saw them.

    Attributes:
        task: Times and horizons.
        patients: The cohort that was predicted.
        folds: Of each repeat in turn, indices of the test patients of each fold.
        survival: For each model, of each fold, [n, curve times].
        outside: Whether the models were trained on another cohort; there is one fold then, with everybody.
    """

    task: SurvivalTask
    patients: Patients
    folds: list[Index]
    survival: dict[str, list[Floats]]
    outside: bool = False


def cross_validate(recipes: Sequence[Recipe], plan: Plan, console: Console) -> Predictions:
    """Trains every recipe and every baseline on all folds but one, and predicts that one, again and again.

    Everything that is learned from data is learned inside the fold: imputation, encoding, standardisation, weights.

    Args:
        recipes: Survival recipes with the same data and times.
        plan: Repeats, folds, processes.
        console: For progress.

    Raises:
        UserError: A recipe is no survival recipe, they do not belong together, or there are too few patients.
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
    # An interrupt is for the process that waits for the results.
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def predict_external(recipes: Sequence[Recipe], data_dir: Path) -> Predictions:
    """Trains every recipe and every baseline on node-positive patients of Rotterdam, and predicts GBSG.

    Args:
        recipes: As for `cross_validate`.
        data_dir: Where rotterdam.csv lies.

    Raises:
        UserError: The file is missing, or the recipes do not belong together.
    """
    task = _common_task(recipes)
    train, test, schema = load_external(data_dir)
    check_fold(train, test, task, schema, recipes[0].seed, "rotterdam to gbsg")
    survival = {name: [curves] for name, curves in _predict(recipes, task, train, test, schema)}
    return Predictions(task, test, [np.arange(len(test.times))], survival, outside=True)


def _common_task(recipes: Sequence[Recipe]) -> SurvivalTask:
    tasks = [recipe.task for recipe in recipes if isinstance(recipe.task, SurvivalTask)]
    if len(tasks) < len(recipes):
        raise UserError("cross-validation is for recipes with the task 'survival'; for the status task: article-risk")
    if (
        len({(recipe.data.spec, task.curve_times, task.horizons) for recipe, task in zip(recipes, tasks, strict=True)})
        > 1
    ):
        raise UserError("these recipes differ in data, times or horizons, so their figures can't be compared")
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
                f"the baseline {name!r} can't be fitted ({error}); leave out covariates that follow from others"
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
    """Survival of the test patients by a recipe's network, [n, curve times]."""
    # Validation decides only where training stops early; it is then cut off from the training patients.
    early = recipe.training.patience is not None
    data = (
        cut({"train": train, "test": test}, recipe.split, recipe.seed, OUTCOMES)
        if early
        else Splits(train, train, test)
    )
    fabric = Fabric(accelerator="cpu", devices=1)
    model, _ = train_survival(recipe, task, data, schema, fabric, Console(quiet=True))
    return _curves(model, test)
