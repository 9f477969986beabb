import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hypothesis_numpy
from numpy.typing import NDArray
from scipy import ndimage
from skimage.measure import points_in_poly

from medserve_masks import outline
from medserve_masks.measure import measure_objects

# Background is connected across corners.
CORNERS = np.ones((3, 3))

masks = hypothesis_numpy.arrays(bool, st.tuples(st.integers(1, 10), st.integers(1, 10)))


@given(masks)
def test_the_outline_encloses_the_pixels_of_the_object_and_its_holes(mask: NDArray[np.bool_]) -> None:
    labels, count = ndimage.label(mask)
    y, x = np.indices(mask.shape).reshape(2, -1) + 0.5
    points = np.stack([x, y], axis=1)
    boxes = measure_objects(labels, mask.astype(np.float32)).boxes
    for index in range(1, count + 1):
        corners = outline(labels, index, boxes[index - 1])
        enclosed = np.array(points_in_poly(points, corners)).reshape(mask.shape)  # type: ignore[no-untyped-call]
        np.testing.assert_array_equal(enclosed, ndimage.binary_fill_holes(labels == index, CORNERS))


def test_the_outline_of_a_rectangle_has_four_corners() -> None:
    labels = np.zeros((600, 800), np.int32)
    labels[300:310, 400:402] = 5
    corners = outline(labels, 5, np.array([400, 300, 2, 10]))
    assert corners.tolist() == [[400, 300], [402, 300], [402, 310], [400, 310]]


def test_the_outline_of_pixels_that_touch_at_a_corner_stays_in_one_object() -> None:
    labels = np.array([[1, 0], [0, 2]], np.int32)
    assert outline(labels, 1, np.array([0, 0, 1, 1])).tolist() == [[0, 0], [1, 0], [1, 1], [0, 1]]
    assert outline(labels, 2, np.array([1, 1, 1, 1])).tolist() == [[1, 1], [2, 1], [2, 2], [1, 2]]
