import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hypothesis_numpy
from numpy.typing import NDArray
from scipy.spatial.distance import cdist
from sklearn.metrics import f1_score, jaccard_score

from medserve_training.metrics.segmentation import outline_distances, overlap

Mask = NDArray[np.bool_]

pairs = hypothesis_numpy.arrays(bool, st.tuples(st.just(2), st.integers(1, 9), st.integers(1, 9)))


@settings(max_examples=30)
@given(pairs)
def test_overlaps_are_those_of_scikit_learn(masks: Mask) -> None:
    predicted, true = masks
    found = overlap(predicted, true)
    assert found["dice"] == pytest.approx(f1_score(true.ravel(), predicted.ravel(), zero_division=1))
    assert found["iou"] == pytest.approx(jaccard_score(true.ravel(), predicted.ravel(), zero_division=1))


def outline_points(mask: Mask, spacing: tuple[float, float]) -> NDArray[np.float64]:
    """Returns the places of the pixels with a neighbor outside of the mask."""
    height, width = mask.shape
    inside = {(y, x) for y in range(height) for x in range(width) if mask[y, x]}
    outline = [(y, x) for y, x in sorted(inside) if not {(y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1)} <= inside]
    return np.array(outline) * spacing


@given(pairs, st.floats(0.1, 3), st.floats(0.1, 3))
def test_distances_are_those_between_all_pairs_of_points(masks: Mask, row: float, column: float) -> None:
    predicted, true = masks
    found = outline_distances(predicted, true, (row, column))
    if predicted.any() and true.any():
        distances = cdist(outline_points(predicted, (row, column)), outline_points(true, (row, column)))
        to_true, to_predicted = distances.min(axis=1), distances.min(axis=0)
        expected = max(np.percentile(to_true, 95), np.percentile(to_predicted, 95))
        assert found["hausdorff_95_mm"] == pytest.approx(expected)
        assert found["mean_surface_distance_mm"] == pytest.approx(np.append(to_true, to_predicted).mean())
    else:
        diagonal = np.hypot(row * true.shape[0], column * true.shape[1])
        assert set(found.values()) == {diagonal if predicted.any() or true.any() else 0}


def test_a_shift_is_measured_in_millimeters() -> None:
    true = np.zeros((60, 60), bool)
    true[20:40, 20:40] = True
    found = outline_distances(np.roll(true, 3, axis=0), true, (2.0, 0.5))
    assert found["hausdorff_95_mm"] == 6
    assert 0 < found["mean_surface_distance_mm"] < 6
