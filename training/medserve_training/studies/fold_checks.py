"""Checks, before any model is trained, that the folds of cross-validation have enough patients."""

import numpy as np

from medserve_training.data.covariates import describe
from medserve_training.data.data_checks import LEAST_EVENTS, LEAST_TIMES, last_horizon
from medserve_training.data.schema import Schema
from medserve_training.data.splits import Patients, take
from medserve_training.errors import UserError
from medserve_training.metrics.risk_calibration import censor_after, comparable
from medserve_training.recipes.recipe import SurvivalTask
from medserve_training.studies.survival_baselines import INNER_FOLDS, inner_folds


def check_fold(train: Patients, test: Patients, task: SurvivalTask, schema: Schema, seed: int, name: str) -> None:
    """Checks that networks and baselines can be fitted to the training patients, and evaluated on the test patients.

    Args:
        train: The training patients.
        test: The test patients.
        task: Specifies the horizons.
        schema: The covariates.
        seed: Seed of the baselines.
        name: Name of the fold, for messages.

    Raises:
        UserError: There is too little data; the message says of what, and how much is needed.
    """
    unit, end = schema.outcome.time_unit, last_horizon(task)
    first = min(horizon.time for horizon in task.horizons)
    advice = "add patients, choose fewer --folds or other horizons"
    for part, rows in (("training", train), ("test", test)):
        longest = rows.times.max()
        if longest <= end:
            raise UserError(
                f"{name}: follow-up of the {part} patients ends at {longest:g} {unit}, but the last horizon is at "
                f"{end:g}; {advice}"
            )
        if not (rows.events & (rows.times <= first)).any():
            raise UserError(
                f"{name}: no event among the {part} patients up to the first horizon, {first:g} {unit}; at least one "
                f"is needed: {advice}"
            )
    early = train.times[train.events & (train.times <= end)]
    if len(early) < LEAST_EVENTS["training"] or np.unique(early).size < LEAST_TIMES:
        raise UserError(
            f"{name}: too few events among the training patients: {len(early)} at {np.unique(early).size} different "
            f"times up to the last horizon, {end:g} {unit}; at least {LEAST_EVENTS['training']} at {LEAST_TIMES} are "
            f"needed: {advice}"
        )
    _check_inner_folds(train, seed, name)
    if not comparable(censor_after(end, test)):
        raise UserError(f"{name}: no test patient has a longer follow-up than one with an event; {advice}")
    describe(train, schema)


def _check_inner_folds(train: Patients, seed: int, name: str) -> None:
    events, censored = int(train.events.sum()), int((~train.events).sum())
    if min(events, censored or INNER_FOLDS) < INNER_FOLDS:
        raise UserError(
            f"{name}: {events} training patients with an event and {censored} censored; a baseline divides them into "
            f"{INNER_FOLDS} inner folds, for which at least {INNER_FOLDS} of each are needed"
        )
    if not all(comparable(take(train, test)) for _, test in inner_folds(train, seed)):
        raise UserError(
            f"{name}: in one of the {INNER_FOLDS} inner folds of a baseline, no patient has a longer follow-up than "
            "one with an event; add patients"
        )
