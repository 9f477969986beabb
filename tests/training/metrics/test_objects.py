import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hypothesis_numpy
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from medserve_training.metrics.objects import average_precision, f1_score, match_objects
from medserve_training.metrics.segmentation import OVERLAPS, object_figures

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
    found, true = labels
    ious = all_ious(found, true)
    matches = match_objects(true, found)
    assert (len(matches.found_areas), len(matches.true_areas)) == ious.shape
    for overlap in OVERLAPS:
        above = ious > overlap
        true_positives = above[linear_sum_assignment(above, maximize=True)].sum()
        false_positives, false_negatives = ious.shape - true_positives
        total = true_positives + false_positives + false_negatives
        expected = (true_positives / total, 2 * true_positives / (total + true_positives)) if total else (1, 1)
        assert (average_precision(matches, overlap), f1_score(matches, overlap)) == pytest.approx(expected)


def test_figures_of_an_example() -> None:
    true, found = np.zeros((2, 20, 20), np.int32)
    true[:10, :10] = 1  # found exactly
    found[:10, :10] = 5
    true[10:, :10] = 2  # found with an IoU of 0.8
    found[10:, :8] = 1
    true[:10, 10:] = 3  # missed: its IoU is 0.5
    found[:10, 10:15] = 2
    found[15:, 15:] = 9  # wrong
    figures = object_figures(true, found)
    assert figures["average_precision_50"] == 2 / 5
    assert figures["average_precision_50_95"] == pytest.approx((6 * 2 / 5 + 4 * 1 / 6) / 10)
    assert figures["f1_50"] == 4 / 7
    assert figures["panoptic_quality"] == pytest.approx(1.8 / 3.5)
    assert figures["count_error"] == pytest.approx(1 / 3)


def test_an_image_without_objects_is_perfect_only_if_none_are_found() -> None:
    empty = np.zeros((4, 4), np.int32)
    right = object_figures(empty, empty)
    assert right.pop("count_error") == 0
    assert set(right.values()) == {1}
    wrong = object_figures(empty, np.eye(4, dtype=np.int32))
    assert wrong.pop("count_error") == 1
    assert set(wrong.values()) == {0}


def test_images_with_many_objects_are_matched() -> None:
    labels = np.arange(1, 250_001, dtype=np.int32).reshape(500, 500)
    matches = match_objects(labels, labels[::-1])
    assert (len(matches.found_areas), len(matches.true_areas)) == (250_000, 250_000)
    np.testing.assert_array_equal(matches.overlaps, np.ones(250_000))
