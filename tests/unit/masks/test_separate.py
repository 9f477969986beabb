import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hypothesis_numpy
from numpy.typing import NDArray
from scipy import ndimage
from skimage.measure import label
from skimage.segmentation import watershed

from medserve_masks import ObjectRule, label_objects

Floats = NDArray[np.float32]

RULE = ObjectRule(threshold=0.5, marker_distance=None, min_area=1, largest_only=False, fill_holes=False)

maps = hypothesis_numpy.arrays(
    np.float32,
    st.tuples(st.integers(1, 12), st.integers(1, 12)),
    elements=st.sampled_from([0, 0.25, 0.5, 0.75, 1]),
)


def drawing(*rows: str) -> Floats:
    """Returns a map with the digits' tenths; a dot is 0."""
    return np.array([[0 if pixel == "." else int(pixel) / 10 for pixel in row] for row in rows], np.float32)


def rows_of(labels: NDArray[np.int32]) -> list[str]:
    return ["".join("." if value == 0 else str(value) for value in row) for row in labels.tolist()]


def test_objects_are_connected_areas_numbered_by_decreasing_area() -> None:
    labels = label_objects(drawing("9..5", ".888", "8..8"), None, RULE)
    assert labels.dtype == np.int32
    assert rows_of(labels) == ["2..1", ".111", "3..1"]


def test_touching_nuclei_are_separated() -> None:
    y, x = np.indices((40, 60))
    radius = np.minimum(np.hypot(y - 20, x - 20), np.hypot(y - 20, x - 38))
    distance = np.clip(1 - radius / 12, 0, 1).astype(np.float32)
    probabilities = (distance > 0).astype(np.float32)
    assert label_objects(probabilities, None, RULE).max() == 1
    labels = label_objects(probabilities, distance, dataclasses.replace(RULE, marker_distance=0.6))
    assert labels.max() == 2
    assert (labels > 0).sum() == (probabilities > 0).sum()
    assert len(np.unique(labels[:, :29][labels[:, :29] > 0])) == 1
    assert len(np.unique(labels[:, 30:][labels[:, 30:] > 0])) == 1


@given(maps, st.integers(0, 1000))
def test_every_area_is_separated_as_by_one_watershed_of_the_image(probabilities: Floats, seed: int) -> None:
    # All different: equal distances are flooded in an arbitrary order.
    order = np.random.default_rng(seed).permutation(probabilities.size).reshape(probabilities.shape)
    distance: Floats = (order / probabilities.size).astype(np.float32)
    labels = label_objects(probabilities, distance, dataclasses.replace(RULE, marker_distance=0.75))
    mask = probabilities >= 0.5
    markers, count = label((distance >= 0.75) & mask, connectivity=1, return_num=True)  # type: ignore[no-untyped-call]
    areas, _ = ndimage.label(mask)
    unmarked = mask & ~np.isin(areas, areas[markers > 0])
    expected = watershed(-distance, markers, mask=mask)  # type: ignore[no-untyped-call]
    expected = np.where(unmarked, count + areas, expected)
    pairs = np.unique(np.stack([labels.ravel(), expected.ravel()], axis=1), axis=0)
    assert len(pairs) == len(np.unique(pairs[:, 0])) == len(np.unique(pairs[:, 1]))
    np.testing.assert_array_equal(labels > 0, mask)


@pytest.mark.parametrize("frame", [False, True], ids=["far apart", "in a frame"])
def test_areas_in_a_large_image_are_separated(frame: bool) -> None:
    outputs = np.zeros((600, 600), np.float32)
    if frame:
        outputs[[0, -1]] = outputs[:, [0, -1]] = 0.7
        outputs[[0, -1], [0, -1]] = 0.9  # two markers, in opposite corners
    outputs[[100, 200], [100, 200]] = 0.7  # two areas without markers
    for place in (10, 300, 590):
        outputs[place, place : place + 5] = [0.9, 0.7, 0.6, 0.7, 0.9]
    labels = label_objects(outputs, outputs, dataclasses.replace(RULE, marker_distance=0.8))
    assert labels.max() == (10 if frame else 8)
    for place in (10, 300, 590):
        first, second = labels[place, [place, place + 4]]
        assert first != second
        assert labels[place, place + 1] == first
        assert labels[place, place + 3] == second
    np.testing.assert_array_equal(labels > 0, outputs > 0)


@given(maps, st.booleans(), st.integers(1, 6))
def test_objects_are_connected_large_enough_and_ordered(probabilities: Floats, fill: bool, least: int) -> None:
    rule = dataclasses.replace(RULE, marker_distance=0.7, min_area=least, fill_holes=fill)
    labels = label_objects(probabilities, probabilities, rule)
    areas = np.bincount(labels.ravel())[1:]
    assert (areas >= least).all()
    assert (np.diff(areas) <= 0).all()
    for index in range(1, len(areas) + 1):
        assert ndimage.label(labels == index)[1] == 1


def test_small_objects_are_discarded() -> None:
    rule = dataclasses.replace(RULE, min_area=3)
    assert rows_of(label_objects(drawing("99.9", "9..9", "...."), None, rule)) == ["11..", "1...", "...."]


def test_only_the_largest_object_is_kept() -> None:
    rule = dataclasses.replace(RULE, largest_only=True)
    assert rows_of(label_objects(drawing("9.99", "9..9", "...9"), None, rule)) == ["..11", "...1", "...1"]


def test_holes_are_filled_before_objects_are_ordered() -> None:
    probabilities = drawing("9999.9999999", "9..9.9999999", "9..9........", "9999........")
    assert rows_of(label_objects(probabilities, None, RULE))[1] == "2..2.1111111"
    filled = label_objects(probabilities, None, dataclasses.replace(RULE, fill_holes=True))
    assert rows_of(filled)[1] == "1111.2222222"


@pytest.mark.parametrize("rows", [("999", "9.9", "9.9"), ("999", "9.9", "99.")], ids=["side", "corner"])
def test_background_open_to_the_border_is_no_hole(rows: tuple[str, ...]) -> None:
    labels = label_objects(drawing(*rows), None, dataclasses.replace(RULE, fill_holes=True))
    assert rows_of(labels) == [row.replace("9", "1") for row in rows]


def test_background_between_two_objects_is_no_hole() -> None:
    outputs = drawing("9888887", "8.....8", "7888889")
    labels = label_objects(outputs, outputs, dataclasses.replace(RULE, marker_distance=0.85, fill_holes=True))
    assert labels.max() == 2
    assert rows_of(labels)[1][1:-1] == "....."


def test_background_between_objects_in_different_bands_is_no_hole() -> None:
    outputs = np.zeros((3, 600_000), np.float32)
    outputs[:, :5] = drawing("99999", "9...9", "79997")
    rule = dataclasses.replace(RULE, marker_distance=0.8, fill_holes=True)
    assert rows_of(label_objects(outputs, outputs, rule)[1:2, :5])[0][1:-1] == "..."
    assert (label_objects(outputs, None, dataclasses.replace(RULE, fill_holes=True))[:, :5] == 1).all()


def test_an_object_in_a_hole_is_kept() -> None:
    rule = dataclasses.replace(RULE, fill_holes=True)
    probabilities = np.full((5, 5), 0.9, np.float32)
    probabilities[1:4, 1:4] = 0
    probabilities[2, 2] = 0.9
    labels = label_objects(probabilities, None, rule)
    assert rows_of(labels)[2] == "1.2.1"
    small = label_objects(probabilities, None, dataclasses.replace(rule, min_area=2))
    assert (small == 1).all()


def test_maps_without_objects_are_background() -> None:
    empty = np.zeros((3, 4), np.float32)
    rule = dataclasses.replace(RULE, marker_distance=0.5, fill_holes=True, largest_only=True)
    assert not label_objects(empty, empty, rule).any()


def test_a_marker_distance_needs_a_distance() -> None:
    with pytest.raises(ValueError, match=r"marker distance \(0.5\) needs the output `distance`"):
        label_objects(np.zeros((3, 4), np.float32), None, dataclasses.replace(RULE, marker_distance=0.5))
