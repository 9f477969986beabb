"""Calibration of predicted risks: calibration slope, observed-to-expected ratio, D-calibration."""

import numpy as np
from numpy.typing import NDArray
from scipy.stats import chi2

from medserve_training.data.splits import Patients
from medserve_training.metrics.censoring import kaplan_meier

Floats = NDArray[np.float64]

_BINS = 10
# Keeps log(-log S) finite.
_EDGE = 1e-7
# Step of Newton's method after which the slope is exact: the method doubles the number of correct digits in each step.
_CONVERGED = 1e-8


def censor_after(end: float, rows: Patients) -> Patients:
    """Censors patients just after `end`: metrics up to `end` do not change, and the weights stay within follow-up."""
    later = rows.times > end
    return Patients(rows.features, np.where(later, end * 1.001, rows.times), rows.events & ~later)


def comparable(rows: Patients) -> bool:
    """Returns whether a comparable pair exists: a patient with an event, and one event-free at that time."""
    first = rows.times[rows.events].min(initial=np.inf)
    return bool(((rows.times > first) | ((rows.times == first) & ~rows.events)).any())


def calibration_slope(risk: Floats, rows: Patients, time: float) -> float:
    """Returns the coefficient of a Cox regression on the complementary log-log of the predicted risks, up to `time`.

    1 is ideal; below 1 the predictions are too extreme, above 1 not extreme enough (van Houwelingen 2000; Royston &
    Altman 2013). NaN if no event was observed.

    Args:
        risk: Predicted probability of the event by `time`, [n].
        rows: The patients.
        time: The horizon.
    """
    rows = censor_after(time, rows)
    predictor = np.log(-np.log(1 - np.clip(risk, _EDGE, 1 - _EDGE)))
    order = np.argsort(-rows.times, kind="stable")
    predictor, times, events = predictor[order], rows.times[order], rows.events[order]
    # With decreasing times, the rows at risk are those up to the last one of the same time (Breslow's method for ties).
    last = len(times) - 1 - np.searchsorted(times[::-1], times[events], side="left")
    if not len(last):
        return float("nan")
    slope = 1.0
    for _ in range(20):
        weights = np.exp(slope * (predictor - predictor.max()))
        total, first, second = (np.cumsum(weights * predictor**power)[last] for power in range(3))
        mean = first / total
        information = (second / total - mean**2).sum()
        step = (predictor[events] - mean).sum() / max(information, _EDGE)
        slope += float(np.clip(step, -1, 1))
        if abs(step) < _CONVERGED:
            break
    return slope


def observed_to_expected(risk: Floats, rows: Patients, time: float) -> float:
    """Returns the ratio of the observed risk by a time (1 - Kaplan-Meier) to the mean of the predicted risks, [n]."""
    times, alive = kaplan_meier(rows)
    before = np.searchsorted(times, time, side="right") - 1
    observed = 1 - alive[before] if before >= 0 else 0.0
    return float(observed / risk.mean())


def survival_at(survival: Floats, curve_times: Floats, times: Floats) -> Floats:
    """Interpolates each patient's survival at an individual time, [n], with constant hazards between the curve's times.

    Args:
        survival: [n, curve times].
        curve_times: Increasing, from 0.
        times: [n], at most the last time of the curve.
    """
    logs = np.log(np.clip(survival, _EDGE, 1))
    after = np.clip(np.searchsorted(curve_times, times, side="left"), 1, len(curve_times) - 1)
    row = np.arange(len(times))
    part = (times - curve_times[after - 1]) / (curve_times[after] - curve_times[after - 1])
    result: Floats = np.exp((1 - part) * logs[row, after - 1] + part * logs[row, after])
    return result


def d_calibration(survival: Floats, curve_times: Floats, rows: Patients) -> float:
    """Returns the p-value of D-calibration (Haider et al. 2020, section 3.4), small for miscalibrated curves.

    Survival at the time of the event is uniform on [0, 1] if the curves are calibrated. A patient censored at survival
    s is distributed uniformly over [0, s]. Pearson's chi-squared test over ten bins; follow-up ends with the curve.

    Args:
        survival: [n, curve times].
        curve_times: Increasing, from 0.
        rows: The patients.
    """
    end = curve_times[-1]
    events, times = rows.events & (rows.times <= end), np.minimum(rows.times, end)
    reached = survival_at(survival, curve_times, times)
    edges = np.arange(_BINS) / _BINS
    # A censored patient's mass is spread over the bins; that of an event is in one bin.
    below = np.clip(reached[:, None] - edges, 0, 1 / _BINS) / reached[:, None]
    inside = np.minimum((reached * _BINS).astype(int), _BINS - 1)
    mass = np.where(events[:, None], np.eye(_BINS)[inside], below).sum(axis=0)
    expected = len(times) / _BINS
    return float(chi2.sf(((mass - expected) ** 2 / expected).sum(), _BINS - 1))
