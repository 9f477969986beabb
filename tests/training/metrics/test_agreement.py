import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import bootstrap

from medserve_training.metrics.agreement import agreement_metrics, limits_of_agreement
from medserve_training.metrics.bootstrap import mean_metrics, resampled_means

Floats = NDArray[np.float64]


def test_intervals_without_clusters_are_those_of_scipy() -> None:
    values = np.random.default_rng(1).normal(3, 2, 200)
    (metric,) = mean_metrics([{"dice": value} for value in values], np.arange(200), "images")
    expected = bootstrap((values,), np.mean, method="percentile", rng=0).confidence_interval
    assert metric.name == "dice"
    assert metric.value == pytest.approx(values.mean())
    assert metric.interval.low == pytest.approx(expected.low, abs=0.03)
    assert metric.interval.high == pytest.approx(expected.high, abs=0.03)
    assert metric.interval.method == "bootstrap, 2000 resamples of images"


def test_images_of_one_patient_count_as_one() -> None:
    values = np.random.default_rng(1).normal(3, 2, (50, 1))
    once = resampled_means(values, np.arange(50))
    five_times = resampled_means(np.repeat(values, 5, axis=0), np.repeat(np.arange(50), 5))
    np.testing.assert_allclose(once, five_times)


def test_the_mean_of_resamples_weighs_each_image_equally() -> None:
    values = np.array([[0.0], [1.0], [1.0], [1.0]])
    means = resampled_means(values, np.array(["a", "b", "b", "b"]))
    assert set(np.unique(means)) == {0, 0.75, 1}


def test_limits_of_agreement_cover_most_differences() -> None:
    random = np.random.default_rng(2)
    reference = random.uniform(150, 350, 400)
    measured = reference + random.normal(1.5, 2, 400)
    metrics = agreement_metrics("head circumference", measured, reference, np.arange(400), "patients")
    values = {metric.name: metric.value for metric in metrics}
    differences = measured - reference
    bias, limit = limits_of_agreement(differences)
    assert values == {
        "head_circumference_bias_mm": bias,
        "head_circumference_lower_limit_of_agreement_mm": bias - limit,
        "head_circumference_upper_limit_of_agreement_mm": bias + limit,
        "head_circumference_mean_absolute_difference_mm": pytest.approx(np.abs(differences).mean()),
    }
    assert bias == pytest.approx(1.5, abs=0.3)
    assert np.mean(np.abs(differences - bias) < limit) == pytest.approx(0.95, abs=0.02)


def test_intervals_of_the_limits_of_agreement_are_those_of_scipy() -> None:
    differences = np.random.default_rng(3).normal(1.5, 2, 100)
    metrics = agreement_metrics("length", differences, np.zeros(100), np.arange(100), "images")

    def upper_limit(samples: Floats, axis: int) -> Floats:
        limits: Floats = samples.mean(axis=axis) + 1.96 * samples.std(axis=axis, ddof=1)
        return limits

    expected = bootstrap((differences,), upper_limit, method="percentile", rng=0).confidence_interval
    interval = metrics[2].interval
    assert interval.low == pytest.approx(expected.low, abs=0.1)
    assert interval.high == pytest.approx(expected.high, abs=0.1)
