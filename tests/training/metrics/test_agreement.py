import numpy as np
import pytest
from scipy.stats import bootstrap

from medserve_training.metrics.agreement import limits_of_agreement
from medserve_training.metrics.segmentation import summarize


def test_intervals_without_groups_are_those_of_scipy() -> None:
    values = np.random.default_rng(1).normal(3, 2, 200)
    (metric,) = summarize([{"dice": value} for value in values], [str(index) for index in range(200)])
    expected = bootstrap((values,), np.mean, method="percentile", rng=0).confidence_interval
    assert metric.value == pytest.approx(values.mean())
    assert metric.interval.low == pytest.approx(expected.low, abs=0.05)
    assert metric.interval.high == pytest.approx(expected.high, abs=0.05)


def test_images_of_one_patient_count_as_one() -> None:
    values = np.random.default_rng(1).normal(3, 2, 50)
    once = summarize([{"dice": value} for value in values], [str(index) for index in range(50)])
    five_times = summarize(
        [{"dice": value} for value in np.repeat(values, 5)], [str(index) for index in range(50) for _ in range(5)]
    )
    assert five_times[0].interval.low == pytest.approx(once[0].interval.low)
    assert five_times[0].interval.high == pytest.approx(once[0].interval.high)


def test_figures_that_some_images_lack_are_of_the_others() -> None:
    (error,) = [
        metric
        for metric in summarize([{"measure_error_mm": 2.0}, {}, {"measure_error_mm": 4.0}], ["a", "b", "c"])
        if metric.name == "mean_absolute_error_mm"
    ]
    assert error.value == 3
    assert not error.HasField("interval")


def test_limits_of_agreement_cover_most_differences() -> None:
    differences = np.random.default_rng(2).normal(1.5, 2, 400)
    bias, limit = limits_of_agreement(differences)
    assert bias == pytest.approx(1.5, abs=0.3)
    assert np.mean(np.abs(differences - bias) < limit) == pytest.approx(0.95, abs=0.02)
