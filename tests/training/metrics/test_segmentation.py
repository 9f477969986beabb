import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hypothesis_numpy
from numpy.typing import NDArray
from scipy.spatial.distance import cdist
from sklearn.metrics import f1_score, jaccard_score

from medserve_training.metrics.overlap import dice, intersection_over_union, surface_distances

Mask = NDArray[np.bool_]

pairs = hypothesis_numpy.arrays(bool, st.tuples(st.just(2), st.integers(1, 9), st.integers(1, 9)))


@settings(max_examples=30)
@given(pairs)
def test_overlaps_are_those_of_scikit_learn(masks: Mask) -> None:
    predicted, true = masks
    expected = f1_score(true.ravel(), predicted.ravel(), zero_division=1)
    assert dice(true, predicted) == pytest.approx(expected)
    expected = jaccard_score(true.ravel(), predicted.ravel(), zero_division=1)
    assert intersection_over_union(true, predicted) == pytest.approx(expected)


def outline_points(mask: Mask, spacing: tuple[float, float]) -> NDArray[np.float64]:
    """Returns the places of the pixels with a neighbor outside of the mask."""
    height, width = mask.shape
    inside = {(y, x) for y in range(height) for x in range(width) if mask[y, x]}
    outline = [(y, x) for y, x in sorted(inside) if not {(y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1)} <= inside]
    return np.array(outline) * spacing


@given(pairs, st.floats(0.1, 3), st.floats(0.1, 3))
def test_distances_are_those_between_all_pairs_of_points(masks: Mask, row: float, column: float) -> None:
    predicted, true = masks
    found = surface_distances(true, predicted, (row, column))
    if predicted.any() and true.any():
        distances = cdist(outline_points(predicted, (row, column)), outline_points(true, (row, column)))
        to_true, to_predicted = distances.min(axis=1), distances.min(axis=0)
        expected = max(np.percentile(to_true, 95), np.percentile(to_predicted, 95))
        assert found == pytest.approx((expected, np.append(to_true, to_predicted).mean()))
    else:
        assert found is None


def test_a_shift_is_measured_in_millimeters() -> None:
    true = np.zeros((60, 60), bool)
    true[20:40, 20:40] = True
    found = surface_distances(true, np.roll(true, 3, axis=0), (2.0, 0.5))
    assert found is not None
    assert found[0] == 6
    assert 0 < found[1] < 6
