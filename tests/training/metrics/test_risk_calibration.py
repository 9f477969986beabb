import numpy as np
import pytest
from sksurv.linear_model import CoxPHSurvivalAnalysis
from sksurv.nonparametric import kaplan_meier_estimator
from sksurv.util import Surv

from medserve_training.data.splits import Patients
from medserve_training.metrics.risk_calibration import (
    calibration_slope,
    censor_after,
    d_calibration,
    observed_to_expected,
    survival_at,
)

CURVE = np.arange(0, 13.0)


def simulated(size: int, seed: int) -> tuple[Patients, np.ndarray[tuple[int, ...], np.dtype[np.float64]]]:
    """Patients with exponential event times, and their true survival functions."""
    random = np.random.default_rng(seed)
    rates = 0.1 * np.exp(random.normal(0, 0.8, size))
    times, censoring = random.exponential(1 / rates), random.uniform(2, 14, size)
    rows = Patients(np.zeros((size, 1), np.float32), np.minimum(times, censoring), times <= censoring)
    return rows, np.exp(-np.outer(rates, CURVE))


@pytest.mark.parametrize("time", [2.0, 8.0])
def test_the_slope_matches_scikit_survivals_cox_regression(time: float) -> None:
    rows, survival = simulated(300, 0)
    rows = rows._replace(times=np.ceil(rows.times * 2) / 2)
    risk = 1 - survival[:, int(time)] ** np.random.default_rng(1).uniform(0.5, 2, 300)
    short = censor_after(time, rows)
    predictor = np.log(-np.log(1 - risk))[:, None]
    expected = (
        CoxPHSurvivalAnalysis(ties="breslow").fit(predictor, Surv.from_arrays(short.events, short.times)).coef_[0]
    )
    assert calibration_slope(risk, rows, time) == pytest.approx(expected, abs=1e-5)


def test_true_risks_are_calibrated_and_wrong_ones_are_detected() -> None:
    rows, survival = simulated(4000, 2)
    risk = 1 - survival[:, 6]
    assert calibration_slope(risk, rows, 6) == pytest.approx(1, abs=0.1)
    assert observed_to_expected(risk, rows, 6) == pytest.approx(1, abs=0.06)
    assert d_calibration(survival, CURVE, rows) > 0.01
    # Twice as far from the mean on the scale of the slope; risks half as large; hazards half as large.
    timid = 1 - np.exp(-np.exp(2 * np.log(-np.log(1 - risk))))
    assert calibration_slope(timid, rows, 6) == pytest.approx(0.5, abs=0.06)
    assert observed_to_expected(risk / 2, rows, 6) == pytest.approx(2, abs=0.12)
    assert d_calibration(np.sqrt(survival), CURVE, rows) < 1e-6


def test_observed_risks_are_kaplan_meier_estimates() -> None:
    rows, _ = simulated(200, 3)
    times, alive = kaplan_meier_estimator(rows.events, rows.times)
    expected = 1 - alive[times <= 5][-1]
    assert observed_to_expected(np.full(200, 0.4), rows, 5) == pytest.approx(expected / 0.4)


def test_d_calibration_is_rarely_rejected_for_correct_curves() -> None:
    p_values = [d_calibration(survival, CURVE, rows) for rows, survival in (simulated(300, seed) for seed in range(60))]
    # Haider et al.: the test is conservative with censoring.
    assert np.mean(np.array(p_values) < 0.05) < 0.1


def test_survival_between_grid_times_has_a_constant_hazard() -> None:
    survival = np.exp(-0.3 * CURVE)[None].repeat(4, axis=0)
    times = np.array([0.0, 0.5, 7.25, 12.0])
    np.testing.assert_allclose(survival_at(survival, CURVE, times), np.exp(-0.3 * times))


def test_without_an_event_there_is_no_slope() -> None:
    rows, survival = simulated(20, 4)
    assert np.isnan(calibration_slope(1 - survival[:, 3], rows._replace(events=np.zeros(20, bool)), 3))
