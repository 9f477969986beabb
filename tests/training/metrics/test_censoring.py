"""Estimates from censored follow-up match scikit-survival's."""

import numpy as np
import pytest
from sksurv.metrics import brier_score, concordance_index_censored, concordance_index_ipcw, cumulative_dynamic_auc
from sksurv.nonparametric import kaplan_meier_estimator
from sksurv.util import Surv

from medserve_training.data.splits import Patients
from medserve_training.metrics.censoring import area_at, brier_scores, censoring_weights, concordance, kaplan_meier
from medserve_training.metrics.risk_calibration import censor_after

END = 8.0


def simulated(size: int, seed: int, censored: float) -> Patients:
    """Whole numbers, so that times are tied; followed to at most 1.001 times END."""
    random = np.random.default_rng(seed)
    times = random.integers(1, 15, size).astype(np.float64)
    return censor_after(END, Patients(np.zeros((size, 1), np.float32), times, random.random(size) >= censored))


@pytest.fixture(params=[0.0, 0.4, 0.8])
def cohorts(request: pytest.FixtureRequest) -> tuple[Patients, Patients]:
    """A training and a test split; none, some or most of the patients are censored before END."""
    return simulated(150, 0, request.param), simulated(60, 1, request.param)


def test_rankings_match_scikit_survival(cohorts: tuple[Patients, Patients]) -> None:
    train, rows = cohorts
    risk = np.random.default_rng(2).integers(0, 20, 60) / 20  # with ties
    weights = censoring_weights(train, rows)
    outcomes = [Surv.from_arrays(part.events, part.times) for part in cohorts]
    harrell = concordance_index_censored(rows.events, rows.times, risk)[0]
    assert concordance(risk, rows, np.ones(60)) == pytest.approx(harrell, abs=1e-12)
    uno = concordance_index_ipcw(*outcomes, risk)[0]
    assert concordance(risk, rows, weights**2) == pytest.approx(uno, abs=1e-12)
    times = [1.5, 4.0, END]
    areas = cumulative_dynamic_auc(*outcomes, risk, times)[0]
    assert [area_at(time, risk, rows, weights) for time in times] == pytest.approx(list(areas), abs=1e-12)


def test_brier_scores_match_scikit_survival(cohorts: tuple[Patients, Patients]) -> None:
    train, rows = cohorts
    times = np.array([1.5, 4.0, END])
    survival = np.sort(np.random.default_rng(3).random((60, 3)))[:, ::-1]
    expected = brier_score(*(Surv.from_arrays(part.events, part.times) for part in cohorts), survival, times)[1]
    np.testing.assert_allclose(brier_scores(survival, times, train, rows), expected, atol=1e-12)


def test_survival_matches_scikit_survival(cohorts: tuple[Patients, Patients]) -> None:
    _, rows = cohorts
    for found, expected in zip(kaplan_meier(rows), kaplan_meier_estimator(rows.events, rows.times), strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-12)


def test_metrics_without_a_comparable_pair_are_nan() -> None:
    rows = Patients(np.zeros((3, 1), np.float32), np.array([1.0, 2.0, 2.0]), np.array([False, True, True]))
    risk = np.arange(3.0)
    assert np.isnan(concordance(risk, rows, np.ones(3)))
    assert np.isnan(area_at(1.5, risk, rows, np.ones(3)))
    assert np.isnan(area_at(2.0, risk, rows, np.ones(3)))
