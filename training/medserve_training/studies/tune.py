"""Hyperparameter search over a recipe's keys by the validation loss; the test split is not used."""

import csv
import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tomlkit
from lightning_fabric import Fabric
from rich.console import Console

from medserve_training.data.data_checks import check_images, check_patients
from medserve_training.data.image_data import load_images
from medserve_training.data.masks.load import load_masks
from medserve_training.data.patient_data import load_patients
from medserve_training.errors import Diverged, UserError
from medserve_training.recipes.recipe import ImageTask, Recipe, SurvivalTask, load_recipe, read_recipe
from medserve_training.recipes.segmentation_settings import SegmentationTask
from medserve_training.recipes.strict_toml import toml_value
from medserve_training.staging import require_writable, staged
from medserve_training.training.fit_images import train_images
from medserve_training.training.segmentation.fit import train_segmentation
from medserve_training.training.train_risk import train_survival

try:
    import optuna
except ModuleNotFoundError as error:
    raise UserError(
        "medserve-train tune needs Optuna, which the extra training installs: "
        "pip install '.[training]' in a checkout of medserve, or 'FILE.whl[training]' with its wheel"
    ) from error

Choice = str | int | float | bool
Choices = tuple[Choice, ...]


@dataclass(frozen=True)
class Range:
    """A range from low to high: of integers if both are, and on a logarithmic scale if both are above 0."""

    low: float
    high: float


@dataclass(frozen=True)
class Search:
    """A search: the arguments of `load_recipe`, the search space by key, the number of trials or grid, and the seed."""

    recipe: str
    overrides: Sequence[str]
    data: str | None
    space: Mapping[str, Range | Choices]
    trials: int
    grid: bool
    seed: int


def parse_space(texts: Sequence[str]) -> dict[str, Range | Choices]:
    """Parses "key=low..high" and "key=a,b,c"; values are TOML, or text if they are not valid TOML.

    Raises:
        UserError: A text has neither form.
    """
    space: dict[str, Range | Choices] = {}
    for text in texts:
        key, equals, values = text.partition("=")
        if not equals or not values:
            raise UserError(
                f"--vary {text}: expected key=low..high or key=a,b,c, e.g. training.learning_rate=1e-4..1e-2"
            )
        if ".." in values:
            low, high = (_value(part) for part in values.split("..", 1))
            if not isinstance(low, (int, float)) or not isinstance(high, (int, float)) or not low < high:
                raise UserError(f"--vary {text}: expected two numbers, the lower first")
            space[key] = Range(low, high)
        else:
            space[key] = tuple(_value(part) for part in values.split(","))
    return space


def _value(text: str) -> Choice:
    value = toml_value(text.strip())
    if not isinstance(value, (str, int, float, bool)):
        raise UserError(f"--vary: {text} is neither a number nor text nor true or false")
    return value


def tune(search: Search, data_dir: Path, folder: Path, fabric: Fabric, console: Console) -> dict[str, object]:
    """Searches for the best values of a recipe's keys, by a tree-structured Parzen estimator or over a grid.

    Args:
        search: The search.
        data_dir: Folder of MedMNIST's files.
        folder: Output folder of trials.csv, with every trial, and best.toml, the recipe with the best values.
        fabric: A launched Fabric.
        console: Receives a line after each trial.

    Returns:
        The best values and their loss.

    Raises:
        UserError: A key is not in the recipe, a grid has a range, or every trial diverged.
    """
    keys = list(search.space)
    if "training.loss" in keys:
        raise UserError("--vary training.loss: the values of different losses cannot be compared")
    require_writable(folder)
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(sampler=_sampler(search))

    def objective(trial: optuna.Trial) -> float:
        chosen = {key: _suggest(trial, key, values) for key, values in search.space.items()}
        recipe = load_recipe(search.recipe, [*search.overrides, *_overrides(chosen)], search.data)
        try:
            loss = validation_loss(recipe, data_dir, fabric)
        except Diverged:
            console.print(f"trial {trial.number + 1}: diverged with {chosen}", highlight=False)
            raise
        console.print(f"trial {trial.number + 1}: validation loss {loss:.5f} with {chosen}", highlight=False)
        return loss

    trials = math.prod(map(len, _points(search).values())) if search.grid else search.trials
    study.optimize(objective, n_trials=trials, catch=(Diverged,))
    if not any(trial.state == optuna.trial.TrialState.COMPLETE for trial in study.trials):
        raise UserError("every trial diverged; vary training.learning_rate over lower values")
    best = study.best_trial
    with staged() as stage:
        place = stage.folder(folder)
        with (place / "trials.csv").open("w", newline="", encoding="utf-8") as file:
            table = csv.writer(file)
            table.writerow(["trial", *keys, "validation_loss"])
            for trial in study.trials:
                table.writerow([trial.number + 1, *(trial.params.get(key) for key in keys), trial.value])
        (place / "best.toml").write_text(_with_keys(search, best.params), encoding="utf-8")
    return {**best.params, "validation loss": best.value}


def validation_loss(recipe: Recipe, data_dir: Path, fabric: Fabric) -> float:
    """Trains a recipe and returns the validation loss of the final weights, averaged over the members."""
    quiet = Console(quiet=True)
    match recipe.task:
        case ImageTask() as task:
            images = load_images(recipe, task, data_dir)
            check_images(images, recipe, task)
            _, history = train_images(recipe, task, images, fabric, quiet)
        case SegmentationTask() as task:
            _, history = train_segmentation(recipe, task, load_masks(recipe, task, data_dir), fabric, quiet)
        case SurvivalTask() as task:
            patients, schema = load_patients(recipe)
            check_patients(patients, recipe, schema)
            _, history = train_survival(recipe, task, patients, schema, fabric, quiet)
        case _:
            raise UserError(f"recipe {recipe.name}: the task {recipe.task.kind!r} is a reproduction and is not tuned")
    losses = []
    for _, epochs in itertools.groupby(history, key=lambda epoch: epoch.member):
        each = [epoch.validation_loss for epoch in epochs]
        losses.append(each[-1] if recipe.training.patience is None else min(each))
    return sum(losses) / len(losses)


def _points(search: Search) -> dict[str, Choices]:
    points = {}
    for key, values in search.space.items():
        if isinstance(values, Range):
            raise UserError(f"--grid requires values, not a range: write {key}={values.low:g},{values.high:g}")
        points[key] = values
    return points


def _sampler(search: Search) -> optuna.samplers.BaseSampler:
    if search.grid:
        return optuna.samplers.GridSampler(_points(search), seed=search.seed)
    return optuna.samplers.TPESampler(seed=search.seed)


def _suggest(trial: optuna.Trial, key: str, values: Range | Choices) -> object:
    if not isinstance(values, Range):
        return trial.suggest_categorical(key, values)
    low, high, logarithmic = values.low, values.high, values.low > 0
    if isinstance(low, int) and isinstance(high, int):
        return trial.suggest_int(key, low, high, log=logarithmic)
    return trial.suggest_float(key, low, high, log=logarithmic)


def _overrides(chosen: Mapping[str, object]) -> list[str]:
    return [f"{key}={tomlkit.item(value).as_string()}" for key, value in chosen.items()]


def _with_keys(search: Search, best: Mapping[str, object]) -> str:
    """Returns the recipe's text, including its comments, with the overrides and the best values."""
    document = tomlkit.parse(read_recipe(search.recipe))
    chosen = dict(override.split("=", 1) for override in [*search.overrides, *_overrides(best)])
    for key, text in chosen.items():
        *tables, last = key.split(".")
        table: Any = document
        for name in tables:
            table = table.setdefault(name, tomlkit.table())
        table[last] = toml_value(text.strip())
    return tomlkit.dumps(document)
