"""Checks, before training starts, that there is enough data to train, evaluate and export."""

from collections.abc import Iterator

import numpy as np

from medserve_training.data.covariates import describe
from medserve_training.data.schema import Schema
from medserve_training.data.splits import LEAST_OF_A_CLASS, Images, Patients, Rows, Splits, rows_needed
from medserve_training.errors import UserError
from medserve_training.recipes.recipe import ImageTask, Recipe, Split, StatusTask, SurvivalTask

# Minimum number of events by the last horizon in each split: the hazard is fitted to those of training, and the model
# is evaluated on those of validation and test.
LEAST_EVENTS = {"training": 10, "validation": 5, "test": 5}
# Minimum number of distinct times of these events in the training split; with fewer there is no curve to fit.
LEAST_TIMES = 3

_NAMES = ("training", "validation", "test")


def check_images(data: Splits[Images], recipe: Recipe, task: ImageTask) -> None:
    """Checks that every class has enough images in every split, and that those of training are not all identical.

    Args:
        data: The splits.
        recipe: Specifies the data and the fractions of the split.
        task: Names the classes.

    Raises:
        UserError: There is too little data; the message says of what, and how much is needed.
    """
    counts = {name: np.bincount(part.labels, minlength=len(task.labels)) for name, part in _parts(data)}
    for name, of_class in counts.items():
        fewest = int(of_class.argmin())
        if of_class[fewest] < LEAST_OF_A_CLASS:
            held_out = counts["validation"][fewest] + counts["test"][fewest] > 0
            identical = " that are not also in validation or test" if name == "training" and held_out else ""
            raise UserError(
                f"{recipe.data.spec}: too few images of class {task.labels[fewest]!r}{identical} in the {name} "
                f"split: {of_class[fewest]}; {_needed('different images of each class', recipe.split)}"
            )
    for index, label in enumerate(task.labels):
        pixels = data.train.pixels[data.train.labels == index]
        if (pixels == pixels[0]).all():
            raise UserError(
                f"{recipe.data.spec}: all {len(pixels)} images of class {label!r} in the training split are "
                f"identical; {_needed('different images of each class', recipe.split)}"
            )


def check_patients(data: Splits[Patients], recipe: Recipe, schema: Schema) -> None:
    """Checks that every split has enough events, and that every covariate varies.

    Args:
        data: The splits.
        recipe: Its task determines how many events are needed, and by which time.
        schema: The covariates.

    Raises:
        UserError: There is too little data; the message says of what, and how much is needed.
    """
    match recipe.task:
        case SurvivalTask() as task:
            _check_survival(data, recipe.data.spec, task, schema.outcome.time_unit)
        case StatusTask():
            _check_status(data, recipe.data.spec, recipe.split)
    try:
        describe(data.train, schema)
    except UserError as error:
        raise UserError(f"{recipe.data.spec}: {error}") from error


def _check_survival(data: Splits[Patients], spec: str, task: SurvivalTask, unit: str) -> None:
    end = last_horizon(task)
    for name, part in _parts(data):
        events = int((part.events & (part.times <= end)).sum())
        if events < LEAST_EVENTS[name]:
            needed = ", ".join(f"{least} in {split}" for split, least in LEAST_EVENTS.items())
            raise UserError(
                f"{spec}: too few events in the {name} split: {events} up to the last horizon, {end:g} {unit}, among "
                f"{len(part.times)} patients; at least {needed} are needed: add patients, or choose other horizons or "
                "a larger part for that split"
            )
    longest = data.train.times.max()
    if longest <= end:
        raise UserError(
            f"{spec}: follow-up in the training split ends at {longest:g} {unit}, but the last horizon is at {end:g}; "
            "choose earlier horizons in the recipe"
        )
    distinct = np.unique(data.train.times[data.train.events & (data.train.times <= end)]).size
    if distinct < LEAST_TIMES:
        raise UserError(
            f"{spec}: too few distinct event times in the training split: {distinct} up to the last horizon, "
            f"{end:g} {unit}; at least {LEAST_TIMES} are needed: give more precise times, or choose a later horizon"
        )


def _check_status(data: Splits[Patients], spec: str, split: Split) -> None:
    for name, part in _parts(data):
        events = int(part.events.sum())
        for what, count in (("with an event", events), ("without one", len(part.events) - events)):
            if count < LEAST_OF_A_CLASS:
                needed = _needed("patients with an event and as many without one", split)
                raise UserError(f"{spec}: too few patients {what} in the {name} split: {count}; {needed}")


def last_horizon(task: SurvivalTask) -> float:
    """Returns the latest time at which a model is evaluated."""
    return max(horizon.time for horizon in task.horizons)


def _parts(data: Splits[Rows]) -> Iterator[tuple[str, Rows]]:
    yield from zip(_NAMES, (data.train, data.validation, data.test), strict=True)


def _needed(what: str, split: Split) -> str:
    return (
        f"at least {LEAST_OF_A_CLASS} {what} are needed in each of training, validation and test, which is about "
        f"{rows_needed(split)} in a data set that is divided by the recipe's [split]"
    )
