import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn.metrics import brier_score_loss, roc_auc_score
from sksurv.metrics import concordance_index_censored

from medserve_proto.v1 import manifest_pb2 as pb
from medserve_training.data.patient_data import load_patients
from medserve_training.data.splits import Patients, take
from medserve_training.errors import UserError
from medserve_training.metrics.classification import (
    auroc,
    calibration_error,
    classification_metrics,
)
from medserve_training.metrics.operating_points import operating_points, sensitivity_specificity
from medserve_training.metrics.risk import discrimination, risk_metrics
from medserve_training.plots.classification import net_benefit
from medserve_training.recipes.recipe import load_recipe

Floats = NDArray[np.float64]
Labels = NDArray[np.int64]

# Few distinct values, so that there are ties.
scores = st.lists(st.integers(0, 20).map(lambda number: number / 20), min_size=2, max_size=40)


@given(scores, scores)
def test_auroc_with_ties_matches_scikit_learn(positive: list[float], negative: list[float]) -> None:
    expected = roc_auc_score([1] * len(positive) + [0] * len(negative), positive + negative)
    assert auroc(np.array(positive), np.array(negative)) == pytest.approx(expected)


def cost(values: Floats, labels: Labels, threshold: float) -> float:
    """A false negative costs as much as five false positives."""
    positive = values >= threshold
    return float(5 * (~positive & (labels == 1)).sum() + (positive & (labels == 0)).sum())


@given(scores, scores)
def test_the_operating_point_is_the_highest_threshold_with_the_required_sensitivity(
    positive: list[float], negative: list[float]
) -> None:
    values, labels = np.array(positive + negative), np.array([1] * len(positive) + [0] * len(negative))
    points = {point.name: point for point in operating_points(values, labels, "ill")}
    point, youden, cheap = (points[name] for name in ("sensitivity-0.95", "youden", "cost-5"))
    assert (point.sensitivity, point.specificity) == sensitivity_specificity(values, labels, point.threshold)
    assert point.sensitivity >= 0.95
    for threshold in np.unique(values):
        sensitivity, specificity = sensitivity_specificity(values, labels, threshold)
        assert sensitivity < 0.95 or threshold <= point.threshold or specificity == point.specificity
        assert sensitivity + specificity <= youden.sensitivity + youden.specificity + 1e-12
        assert cost(values, labels, cheap.threshold) <= cost(values, labels, threshold) + 1e-12
    assert points["sensitivity-0.98"].threshold <= point.threshold <= points["sensitivity-0.90"].threshold
    for threshold in (point.threshold, youden.threshold):
        assert threshold == 0 or threshold not in values


def test_calibration_error_of_a_small_example() -> None:
    probabilities = np.array([[0.9, 0.1], [0.9, 0.1], [0.35, 0.65], [0.35, 0.65]])
    labels = np.array([0, 1, 1, 1])
    # Two decisions at 0.9, half of them right; two at 0.65, both right.
    assert calibration_error(probabilities, labels) == pytest.approx((0.4 * 2 + 0.35 * 2) / 4)


def test_metrics_of_two_classes_have_confidence_intervals() -> None:
    random = np.random.default_rng(0)
    labels = random.integers(0, 2, 200)
    score = np.clip(labels * 0.3 + random.uniform(0, 0.7, 200), 0, 1)
    metrics = {
        metric.name: metric for metric in classification_metrics(np.stack([1 - score, score], axis=1), labels, 0.2)
    }
    for metric in metrics.values():
        assert metric.interval.low <= metric.value <= metric.interval.high
    assert metrics["auroc"].interval.low < metrics["auroc"].value < metrics["auroc"].interval.high
    assert metrics["brier_score"].value == pytest.approx(((score - labels) ** 2).mean())
    assert metrics["accuracy"].value == pytest.approx(((score > 0.5) == labels).mean())
    assert metrics["sensitivity_at_operating_point"].value == pytest.approx((score[labels == 1] >= 0.2).mean())


def test_metrics_of_several_classes_match_scikit_learn() -> None:
    random = np.random.default_rng(0)
    labels = np.arange(90) % 3
    probabilities = random.dirichlet([1, 1, 1], 90) + np.eye(3)[labels]
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    metrics = {metric.name: metric.value for metric in classification_metrics(probabilities, labels, None)}
    assert metrics["auroc_macro"] == pytest.approx(roc_auc_score(labels, probabilities, multi_class="ovr"))
    assert metrics["brier_score"] == pytest.approx(brier_score_loss(labels, probabilities, labels=[0, 1, 2]))
    assert metrics["accuracy"] == (probabilities.argmax(axis=1) == labels).mean()


def test_net_benefit_of_a_small_example() -> None:
    values, labels = np.array([0.9, 0.8, 0.3, 0.1]), np.array([1, 0, 1, 0])
    assert net_benefit(values, labels, 0.5) == pytest.approx(1 / 4 - 1 / 4)
    assert net_benefit(values, labels, 0.2) == pytest.approx(2 / 4 - 1 / 4 * 0.2 / 0.8)


@pytest.fixture(scope="module")
def gbsg() -> Patients:
    return load_patients(load_recipe("breast-cancer-risk"))[0].train


@pytest.fixture
def task() -> pb.PatientRiskTask:
    return pb.PatientRiskTask(
        curve_times=[0, 365.25, 1826.25],
        horizons=[pb.Horizon(label="1 year", time=365.25), pb.Horizon(label="5 years", time=1826.25)],
        reference_horizon="5 years",
        time_unit="days",
    )


def test_risk_metrics_rank_by_the_reference_horizon(gbsg: Patients, task: pb.PatientRiskTask) -> None:
    rows = take(gbsg, np.arange(120))
    risk = rows.features[:, 4] / 100
    survival = np.stack([np.ones(120), 1 - risk / 2, 1 - risk], axis=1).astype(np.float64)
    metrics = {metric.name: metric for metric in risk_metrics(survival, gbsg, rows, task)}
    assert set(metrics) == {
        "concordance_index",
        "concordance_index_uno",
        "integrated_brier_score",
        "auroc_1_year",
        "auroc_5_years",
        "calibration_slope_1_year",
        "calibration_slope_5_years",
        "observed_to_expected_1_year",
        "observed_to_expected_5_years",
        "d_calibration_p_value",
    }
    within = rows.events & (rows.times <= 1826.25)
    expected = concordance_index_censored(within, np.minimum(rows.times, 1827), 1 - survival[:, 2])[0]
    assert metrics["concordance_index"].value == pytest.approx(expected)
    assert not metrics.pop("d_calibration_p_value").HasField("interval")
    for metric in metrics.values():
        assert metric.interval.low < metric.value < metric.interval.high


def test_without_an_event_by_the_last_horizon_there_is_no_discrimination_metric(
    gbsg: Patients, task: pb.PatientRiskTask
) -> None:
    """As in some resamples and subgroups."""
    rows = take(gbsg, np.flatnonzero(~(gbsg.events & (gbsg.times <= 1826.25))))
    assert rows.events.any()
    figures = discrimination(np.ones((len(rows.times), 3)), gbsg, rows, task)
    assert np.isnan(list(figures.values())).all()


def test_a_horizon_beyond_follow_up_is_rejected(gbsg: Patients, task: pb.PatientRiskTask) -> None:
    early = gbsg._replace(times=gbsg.times / 2)
    with pytest.raises(UserError, match=r"the last horizon is at 1826\.25; choose earlier horizons"):
        risk_metrics(np.ones((len(early.times), 3)), early, early, task)
