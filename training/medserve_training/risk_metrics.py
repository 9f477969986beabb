"""Figures of survival models, by scikit-survival, with bootstrap intervals."""

import numpy as np
from numpy.typing import NDArray
from sksurv.metrics import (
    concordance_index_censored,
    concordance_index_ipcw,
    cumulative_dynamic_auc,
    integrated_brier_score,
)
from sksurv.util import Surv

from medserve_proto.v1 import manifest_pb2 as pb
from medserve_training.errors import UserError
from medserve_training.splits import Patients, take

Floats = NDArray[np.float64]

RESAMPLES = 500
_METHOD = f"bootstrap, {RESAMPLES} resamples within events and censored"
# Of the resampling, so that an interval can be recomputed.
_SEED = 0


def risk_metrics(survival: Floats, train: Patients, rows: Patients, task: pb.PatientRiskTask) -> list[pb.Metric]:
    """All figures of one split.

    Harrell's concordance (1982), Uno's (2011), the integrated Brier score (Graf 1999) and the cumulative/dynamic AUC
    at each horizon (Uno 2007). All look at follow-up up to the last horizon only; the concordances rank the risk at the
    reference horizon; censoring weights come from the training split. A figure that a split can't give, for want of an
    event, is left out.

    Args:
        survival: Predicted, [n, curve times].
        train: The training split, for the distribution of censoring.
        rows: The patients that were predicted.
        task: Gives times and horizons.

    Raises:
        UserError: The training split was not followed up to the last horizon.
    """
    end = max(horizon.time for horizon in task.horizons)
    if train.times.max() <= end:
        raise UserError(
            f"the training split was followed for {train.times.max():g} {task.time_unit}, but the last horizon is at "
            f"{end:g}; choose earlier horizons in the recipe",
        )
    train, rows = _censor_after(end, train), _censor_after(end, rows)
    figures = _figures(survival, train, rows, task)
    random = np.random.default_rng(_SEED)
    resamples = []
    for _ in range(RESAMPLES):
        index = _resample(rows.events, random)
        resamples.append(list(_figures(survival[index], train, take(rows, index), task).values()))
    lows, highs = np.nanquantile(np.array(resamples), [0.025, 0.975], axis=0)
    return [
        pb.Metric(name=name, value=value, interval=pb.ConfidenceInterval(low=low, high=high, method=_METHOD))
        for (name, value), low, high in zip(figures.items(), lows, highs, strict=True)
        if not np.isnan(value)
    ]


def risk_at(survival: Floats, task: pb.PatientRiskTask, time: float) -> Floats:
    """Risk of the event by one of the curve's times, [n]."""
    return 1 - survival[:, list(task.curve_times).index(time)]


def reference_risk(survival: Floats, task: pb.PatientRiskTask) -> Floats:
    """Risk of the event by the reference horizon, [n]."""
    (time,) = (horizon.time for horizon in task.horizons if horizon.label == task.reference_horizon)
    return risk_at(survival, task, time)


def _figures(survival: Floats, train: Patients, rows: Patients, task: pb.PatientRiskTask) -> dict[str, float]:
    train_outcome = Surv.from_arrays(train.events, train.times)
    outcome = Surv.from_arrays(rows.events, rows.times)
    risk = reference_risk(survival, task)
    end = max(horizon.time for horizon in task.horizons)
    grid = np.array([time for time in task.curve_times if rows.times.min() <= time <= end])
    columns = np.isin(task.curve_times, grid)
    figures = {
        "concordance_index": concordance_index_censored(rows.events, rows.times, risk)[0],
        "concordance_index_uno": concordance_index_ipcw(train_outcome, outcome, risk, tau=end)[0],
        "integrated_brier_score": integrated_brier_score(train_outcome, outcome, survival[:, columns], grid),
    }
    for horizon in task.horizons:
        risk = risk_at(survival, task, horizon.time)
        # Without an event so far there is nobody to rank: some resamples have none by the first horizon.
        defined = (rows.events & (rows.times <= horizon.time)).any()
        areas = cumulative_dynamic_auc(train_outcome, outcome, risk, [horizon.time])[0] if defined else [np.nan]
        figures[f"auroc_{horizon.label.replace(' ', '_')}"] = areas[0]
    return {name: float(value) for name, value in figures.items()}


def _censor_after(end: float, rows: Patients) -> Patients:
    """Ends follow-up just after `end`: no figure up to `end` changes, and the weights stay within follow-up."""
    later = rows.times > end
    return Patients(rows.features, np.where(later, end * 1.001, rows.times), rows.events & ~later)


def _resample(events: NDArray[np.bool_], random: np.random.Generator) -> NDArray[np.intp]:
    groups = [np.flatnonzero(events), np.flatnonzero(~events)]
    return np.concatenate([random.choice(group, len(group)) for group in groups])
