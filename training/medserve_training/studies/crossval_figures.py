"""Metrics of cross-validated and external predictions and their pairwise differences, with intervals."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import t as student

from medserve_proto.v1 import manifest_pb2 as pb
from medserve_training.data.splits import Patients, take
from medserve_training.metrics.risk import calibration, discrimination
from medserve_training.metrics.risk_calibration import d_calibration
from medserve_training.recipes.recipe import SurvivalTask
from medserve_training.studies.crossval import Predictions

Floats = NDArray[np.float64]

COMPARED = ("concordance_index", "concordance_index_uno", "integrated_brier_score")
RESAMPLES = 200
_SEED = 0


@dataclass(frozen=True)
class Figure:
    """A mean with its 95 % interval; the spread is the standard deviation over folds, repeats or resamples."""

    mean: float
    low: float
    high: float
    spread: float


Figures = dict[str, dict[str, Figure]]


def crossval_figures(predictions: Predictions, folds: int) -> tuple[Figures, Figures]:
    """Computes the metrics of each model, and the differences between the first one and each of the others.

    Discrimination and Brier scores are means over the folds, with the interval of Nadeau & Bengio (2003), which
    corrects for overlapping training folds. Calibration is measured on all patients of a repeat together, since single
    folds are too small; D-calibration is reported as the median p-value over the repeats and the fraction below 0.05.

    Args:
        predictions: Predictions of cross-validation.
        folds: Number of folds in each repeat.
    """
    task = task_message(predictions.task)
    by_fold = {name: _by_fold(predictions, curves, task) for name, curves in predictions.survival.items()}
    overlap = 1 / (folds - 1)
    figures = {
        name: {key: _mean(values, overlap) for key, values in by_fold[name].items()}
        | _calibration(predictions, predictions.survival[name], folds, task)
        for name in predictions.survival
    }
    first, *others = by_fold
    differences = {
        name: {key: _mean(by_fold[first][key] - by_fold[name][key], overlap) for key in COMPARED} for name in others
    }
    return figures, differences


def external_figures(predictions: Predictions) -> tuple[Figures, Figures]:
    """Computes metrics on the external cohort, and the differences between the first model and each of the others.

    The intervals are bootstrap intervals; the censoring distribution is estimated on the external cohort.
    """
    task, rows = task_message(predictions.task), predictions.patients
    times = np.array(task.curve_times)
    curves = {name: folds[0] for name, folds in predictions.survival.items()}

    def found(rows: Patients, index: NDArray[np.intp]) -> dict[str, dict[str, float]]:
        part = take(rows, index)
        return {
            name: discrimination(survival[index], part, part, task) | calibration(survival[index], part, task)
            for name, survival in curves.items()
        }

    whole = found(rows, np.arange(len(rows.times)))
    random = np.random.default_rng(_SEED)
    resamples = [found(rows, random.integers(0, len(rows.times), len(rows.times))) for _ in range(RESAMPLES)]

    def figure(read: Callable[[dict[str, dict[str, float]]], float]) -> Figure:
        values = np.array([read(resample) for resample in resamples])
        low, high = np.nanquantile(values, [0.025, 0.975])
        return Figure(read(whole), float(low), float(high), float(np.nanstd(values, ddof=1)))

    figures = {
        name: {key: figure(lambda entry, name=name, key=key: entry[name][key]) for key in whole[name]}  # type: ignore[misc]
        | {"d_calibration_p_value": _constant(d_calibration(survival, times, rows))}
        for name, survival in curves.items()
    }
    first, *others = curves
    differences = {
        name: {
            key: figure(lambda entry, name=name, key=key: entry[first][key] - entry[name][key])  # type: ignore[misc]
            for key in COMPARED
        }
        for name in others
    }
    return figures, differences


def task_message(task: SurvivalTask) -> pb.PatientRiskTask:
    """Converts the times and horizons of a task to the message that metrics take."""
    return pb.PatientRiskTask(
        curve_times=task.curve_times,
        horizons=[pb.Horizon(label=horizon.label, time=horizon.time) for horizon in task.horizons],
        reference_horizon=task.reference_horizon,
    )


def _by_fold(predictions: Predictions, curves: Sequence[Floats], task: pb.PatientRiskTask) -> dict[str, Floats]:
    everybody = np.arange(len(predictions.patients.times))
    found = []
    for test, survival in zip(predictions.folds, curves, strict=True):
        train = take(predictions.patients, np.setdiff1d(everybody, test))
        found.append(discrimination(survival, train, take(predictions.patients, test), task))
    return {key: np.array([entry[key] for entry in found]) for key in found[0]}


def _calibration(
    predictions: Predictions, curves: Sequence[Floats], folds: int, task: pb.PatientRiskTask
) -> dict[str, Figure]:
    times = np.array(task.curve_times)
    found, p_values = [], []
    for start in range(0, len(curves), folds):
        rows = take(predictions.patients, np.concatenate(predictions.folds[start : start + folds]))
        survival = np.concatenate(curves[start : start + folds])
        found.append(calibration(survival, rows, task))
        p_values.append(d_calibration(survival, times, rows))
    figures = {key: _range(np.array([entry[key] for entry in found])) for key in found[0]}
    rejected = float(np.mean(np.array(p_values) < 0.05))
    return figures | {
        "d_calibration_p_value": _constant(float(np.median(p_values))),
        "d_calibration_rejected": _constant(rejected),
    }


def _mean(values: Floats, overlap: float) -> Figure:
    """Returns the mean over folds; `overlap` is the ratio of the numbers of test and training patients."""
    deviation = float(values.std(ddof=1))
    half = float(student.ppf(0.975, len(values) - 1)) * deviation * np.sqrt(1 / len(values) + overlap)
    mean = float(values.mean())
    return Figure(mean, mean - half, mean + half, deviation)


def _range(values: Floats) -> Figure:
    """Returns the mean over repeats with their range; a confidence interval is undefined for the same patients."""
    deviation = float(values.std(ddof=1)) if len(values) > 1 else 0.0
    return Figure(float(values.mean()), float(values.min()), float(values.max()), deviation)


def _constant(value: float) -> Figure:
    return Figure(value, value, value, 0.0)
