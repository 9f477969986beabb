import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hypothesis_numpy
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from medserve_training.metrics.objects import THRESHOLDS, count_error, match, object_figures

Labels = NDArray[np.int32]

pairs = hypothesis_numpy.arrays(
    np.int32, st.tuples(st.just(2), st.integers(1, 8), st.integers(1, 8)), elements=st.sampled_from([0, 2, 3, 7])
)


def all_ious(predicted: Labels, true: Labels) -> NDArray[np.float64]:
    """Returns the IoU of each pair of a predicted and a true object."""
    numbers = [np.setdiff1d(labels, 0).tolist() for labels in (predicted, true)]
    ious = np.zeros((len(numbers[0]), len(numbers[1])))
    for (row, first), (column, second) in itertools.product(*map(enumerate, numbers)):
        one, other = predicted == first, true == second
        ious[row, column] = (one & other).sum() / (one | other).sum()
    return ious


@given(pairs)
def test_objects_are_matched_as_by_the_best_assignment(labels: Labels) -> None:
    predicted, true = labels
    ious = all_ious(predicted, true)
    found = match(predicted, true)
    figures = object_figures(found)
    assert (found.predicted, found.true) == ious.shape
    for threshold in THRESHOLDS:
        above = ious > threshold
        true_positives = above[linear_sum_assignment(above, maximize=True)].sum()
        false_positives, false_negatives = ious.shape - true_positives
        name = f"{100 * threshold:.0f}"
        if sum(ious.shape):
            total = true_positives + false_positives + false_negatives
            assert figures[f"average_precision_{name}"] == pytest.approx(true_positives / total)
            assert figures[f"f1_{name}"] == pytest.approx(2 * true_positives / (total + true_positives))
        else:
            assert figures[f"average_precision_{name}"] == figures[f"f1_{name}"] == 1


def test_figures_of_an_example() -> None:
    true, predicted = np.zeros((2, 20, 20), np.int32)
    true[:10, :10] = 1  # found exactly
    predicted[:10, :10] = 5
    true[10:, :10] = 2  # found with an IoU of 0.8
    predicted[10:, :8] = 1
    true[:10, 10:] = 3  # missed: its IoU is 0.5
    predicted[:10, 10:15] = 2
    predicted[15:, 15:] = 9  # wrong
    figures = object_figures(match(predicted, true))
    assert figures["average_precision_50"] == 2 / 5
    assert figures["average_precision_75"] == 2 / 5
    assert figures["average_precision_80"] == 1 / 6
    assert figures["average_precision"] == pytest.approx((6 * 2 / 5 + 4 * 1 / 6) / 10)
    assert figures["f1_50"] == 4 / 7
    assert figures["panoptic_quality"] == pytest.approx(1.8 / 3.5)
    assert figures["relative_count_error"] == pytest.approx(1 / 3)


def test_an_image_without_objects_is_perfect_only_if_none_are_predicted() -> None:
    empty = np.zeros((4, 4), np.int32)
    right = object_figures(match(empty, empty))
    assert right.pop("relative_count_error") == 0
    assert set(right.values()) == {1}
    wrong = object_figures(match(np.eye(4, dtype=np.int32), empty))
    assert wrong.pop("relative_count_error") == 1
    assert set(wrong.values()) == {0}


def test_images_with_many_objects_are_matched() -> None:
    labels = np.arange(1, 250_001, dtype=np.int32).reshape(500, 500)
    found = match(labels[::-1], labels)
    assert (found.predicted, found.true) == (250_000, 250_000)
    np.testing.assert_array_equal(found.ious, np.ones(250_000))


def test_the_count_error_covers_the_middle_of_the_images() -> None:
    predicted = np.full(101, 100)
    error = count_error(predicted, np.arange(50, 151))
    assert (error.low_ratio, error.high_ratio) == (0.55, 1.45)
    assert error.coverage == pytest.approx(91 / 101)


def test_images_without_predicted_objects_count_for_the_coverage_of_the_count_error() -> None:
    error = count_error(np.array([0, 0, 10, 10]), np.array([0, 5, 10, 10]))
    assert (error.low_ratio, error.high_ratio, error.coverage) == (1, 1, 0.75)
