"""Metrics of survival models, with bootstrap intervals."""

import numpy as np
from numpy.typing import NDArray

from medserve_proto.v1 import manifest_pb2 as pb
from medserve_training.data.splits import Patients, take
from medserve_training.errors import UserError
from medserve_training.metrics.censoring import area_at, brier_scores, censoring_weights, concordance
from medserve_training.metrics.risk_calibration import (
    calibration_slope,
    censor_after,
    d_calibration,
    observed_to_expected,
)

Floats = NDArray[np.float64]

RESAMPLES = 200
_METHOD = f"bootstrap, {RESAMPLES} resamples within events and censored"
# Seed of the bootstrap, fixed for reproducible intervals.
_SEED = 0


def risk_metrics(survival: Floats, train: Patients, rows: Patients, task: pb.PatientRiskTask) -> list[pb.Metric]:
    """Computes all metrics of one split: `discrimination` and `calibration` with intervals, and D-calibration.

    Metrics that are undefined on a split, for lack of events or follow-up, are omitted.

    Args:
        survival: Predicted survival functions, [n, curve times].
        train: Patients from which the censoring distribution is estimated: the training split, or the split itself.
        rows: The patients of the predictions.
        task: Specifies times and horizons.

    Raises:
        UserError: Follow-up of the training split ends before the last horizon.
    """
    end = max(horizon.time for horizon in task.horizons)
    if train.times.max() <= end:
        raise UserError(
            f"follow-up in the training split ends at {train.times.max():g} {task.time_unit}, but the last horizon is "
            f"at {end:g}; choose earlier horizons in the recipe",
        )
    figures = _figures(survival, train, rows, task)
    random = np.random.default_rng(_SEED)
    resamples = []
    for _ in range(RESAMPLES):
        index = _resample(rows.events, random)
        resamples.append(list(_figures(survival[index], train, take(rows, index), task).values()))
    metrics = []
    for (name, value), values in zip(figures.items(), np.array(resamples).T, strict=True):
        if not np.isnan(value):
            low, high = np.nanquantile(values, [0.025, 0.975])
            interval = pb.ConfidenceInterval(low=low, high=high, method=_METHOD)
            metrics.append(pb.Metric(name=name, value=value, interval=interval))
    p_value = d_calibration(survival, np.array(task.curve_times), rows)
    return [*metrics, pb.Metric(name="d_calibration_p_value", value=p_value)]


def discrimination(survival: Floats, train: Patients, rows: Patients, task: pb.PatientRiskTask) -> dict[str, float]:
    """Computes concordance indices, the integrated Brier score and the AUC at each horizon.

    Harrell's (1982) and Uno's (2011) concordance index, the integrated Brier score (Graf 1999) and the
    cumulative/dynamic AUC at each horizon (Uno 2007). All are restricted to follow-up until the last horizon; the
    concordance indices rank the risk at the reference horizon; the Brier score is integrated from 0 to the last horizon
    over the curve's times, and divided by that horizon. Arguments as for `risk_metrics`.
    """
    end = max(horizon.time for horizon in task.horizons)
    train, rows = censor_after(end, train), censor_after(end, rows)
    risk = reference_risk(survival, task)
    longest = rows.times.max()
    weights = censoring_weights(train, rows)
    figures = {
        "concordance_index": concordance(risk, rows, np.ones(len(risk))),
        "concordance_index_uno": concordance(risk, rows, np.where(rows.times < end, weights**2, 0)),
        "integrated_brier_score": np.nan,
    }
    grid = np.array([time for time in task.curve_times if rows.times.min() <= time <= end and time < longest])
    if longest > end and len(grid) and rows.events.any():  # a resample or a subgroup may have no event by then
        scores = brier_scores(survival[:, np.isin(task.curve_times, grid)], grid, train, rows)
        # At time 0 no patient has had an event, so the score is 0.
        figures["integrated_brier_score"] = np.trapezoid([0, *scores], [0, *grid]) / end
    for horizon in task.horizons:
        risk = risk_at(survival, task, horizon.time)
        figures[f"auroc_{_name(horizon)}"] = area_at(horizon.time, risk, rows, weights)
    return {name: float(value) for name, value in figures.items()}


def calibration(survival: Floats, rows: Patients, task: pb.PatientRiskTask) -> dict[str, float]:
    """Computes calibration slope and O/E ratio of the risk at each horizon; arguments as for `risk_metrics`."""
    found = {}
    for horizon in task.horizons:
        risk = risk_at(survival, task, horizon.time)
        followed = rows.times.max() > horizon.time
        observed = observed_to_expected(risk, rows, horizon.time) if followed else np.nan
        found[f"calibration_slope_{_name(horizon)}"] = calibration_slope(risk, rows, horizon.time)
        found[f"observed_to_expected_{_name(horizon)}"] = observed
    return found


def risk_at(survival: Floats, task: pb.PatientRiskTask, time: float) -> Floats:
    """Returns the risk of the event by one of the curve's times, [n]."""
    return 1 - survival[:, list(task.curve_times).index(time)]


def reference_risk(survival: Floats, task: pb.PatientRiskTask) -> Floats:
    """Returns the risk of the event by the reference horizon, [n]."""
    (time,) = (horizon.time for horizon in task.horizons if horizon.label == task.reference_horizon)
    return risk_at(survival, task, time)


def _figures(survival: Floats, train: Patients, rows: Patients, task: pb.PatientRiskTask) -> dict[str, float]:
    return discrimination(survival, train, rows, task) | calibration(survival, rows, task)


def _name(horizon: pb.Horizon) -> str:
    return horizon.label.replace(" ", "_")


def _resample(events: NDArray[np.bool_], random: np.random.Generator) -> NDArray[np.intp]:
    groups = [np.flatnonzero(events), np.flatnonzero(~events)]
    return np.concatenate([random.choice(group, len(group)) for group in groups])
