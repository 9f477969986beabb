"""Estimates from censored follow-up: Kaplan-Meier, ranked pairs, and Brier scores.

The tests compare them with scikit-survival, which checks its input in every call and repeats the estimates of the
training split: with it, a bootstrap takes ten times as long.
"""

import numpy as np
from numpy.typing import NDArray

from medserve_training.data.splits import Patients

Floats = NDArray[np.float64]

# Maximum difference of two risks that count as tied, as in scikit-survival.
_TIED = 1e-8


def kaplan_meier(rows: Patients) -> tuple[Floats, Floats]:
    """Returns the distinct times of follow-up, and the survival after each (Kaplan & Meier 1958)."""
    times, observed, _, at_risk = _counts(rows)
    survival: Floats = np.cumprod(1 - observed / at_risk, dtype=np.float64)
    return times, survival


def uncensored(rows: Patients, times: Floats) -> Floats:
    """Returns the probability of not being censored by each time; an event precedes the censoring at its time.

    Args:
        rows: Patients from which the distribution of censoring is estimated.
        times: [n].
    """
    known, observed, censored, at_risk = _counts(rows)
    alive = at_risk - observed
    free = np.cumprod(1 - np.divide(censored, alive, out=np.zeros(len(known)), where=censored > 0))
    return np.concatenate([[1.0], free])[np.searchsorted(known, times, side="right")]


def censoring_weights(train: Patients, rows: Patients) -> Floats:
    """Returns the inverse probability of not being censored by the time of an event, and 0 without an event, [n]."""
    weights = np.zeros(len(rows.times))
    weights[rows.events] = 1 / uncensored(train, rows.times[rows.events])
    return weights


def concordance(risk: Floats, rows: Patients, weights: Floats) -> float:
    """Returns the fraction of comparable pairs in which the patient with the earlier event has the higher risk.

    NaN if no pair is comparable.

    Args:
        risk: [n].
        rows: The patients.
        weights: Weights of the patients with an event, [n]: 1 for Harrell's index (1982), the squared
            `censoring_weights` for Uno's (2011).
    """
    cases = np.flatnonzero(rows.events & (weights > 0))
    first = rows.times[cases, None]
    later = (rows.times > first) | ((rows.times == first) & ~rows.events)
    return _ranked(risk[cases], risk, weights[cases], later)


def area_at(time: float, risk: Floats, rows: Patients, weights: Floats) -> float:
    """Returns the cumulative/dynamic AUC of the risk by a time (Uno et al. 2007).

    NaN before the first event, and from the end of follow-up on.

    Args:
        time: The horizon.
        risk: [n].
        rows: The patients.
        weights: Their `censoring_weights`, [n].
    """
    cases, controls = rows.events & (rows.times <= time), rows.times > time
    pairs = np.ones((cases.sum(), controls.sum()), dtype=bool)
    return _ranked(risk[cases], risk[controls], weights[cases], pairs)


def brier_scores(survival: Floats, times: Floats, train: Patients, rows: Patients) -> Floats:
    """Returns the Brier score at each time, weighted for censoring (Graf et al. 1999).

    Args:
        survival: Predicted survival, [n, times].
        times: [times].
        train: Patients from which the distribution of censoring is estimated.
        rows: The patients of the predictions.
    """
    dead = rows.events[:, None] & (rows.times[:, None] <= times)
    alive = (rows.times[:, None] > times) / uncensored(train, times)
    weights = dead * censoring_weights(train, rows)[:, None]
    scores: Floats = (weights * survival**2 + alive * (1 - survival) ** 2).mean(axis=0)
    return scores


def _counts(rows: Patients) -> tuple[Floats, Floats, Floats, Floats]:
    """Returns the distinct times, and at each the number of events, of patients censored, and of patients at risk."""
    times, index = np.unique(rows.times, return_inverse=True)
    total = np.bincount(index).astype(np.float64)
    observed = np.bincount(index, weights=rows.events).astype(np.float64)
    at_risk: Floats = total[::-1].cumsum()[::-1]
    return times, observed, total - observed, at_risk


def _ranked(cases: Floats, others: Floats, weights: Floats, pairs: NDArray[np.bool_]) -> float:
    """Returns the weighted fraction of the pairs, [cases, others], whose case has the higher risk; ties count half."""
    number = weights @ pairs.sum(axis=1)
    if not number:
        return float("nan")
    difference = cases[:, None] - others
    higher = np.where(np.abs(difference) <= _TIED, 0.5, difference > 0)
    return float(weights @ (higher * pairs).sum(axis=1) / number)
