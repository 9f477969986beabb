import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hypothesis_numpy
from numpy.typing import NDArray

from medserve_masks import run_length

masks = hypothesis_numpy.arrays(bool, st.tuples(st.integers(1, 12), st.integers(1, 12)))


def box_of(mask: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Returns the box of the mask's pixels, or of the whole image without any."""
    y, x = np.nonzero(mask if mask.any() else ~mask)
    return np.array([x.min(), y.min(), np.ptp(x) + 1, np.ptp(y) + 1], np.int64)


@given(masks)
def test_a_mask_is_restored(mask: NDArray[np.bool_]) -> None:
    text = run_length.encode(np.where(mask, 7, 3), 7, box_of(mask))
    np.testing.assert_array_equal(run_length.decode(text, *mask.shape), mask)


def ellipse() -> NDArray[np.bool_]:
    y, x = np.mgrid[:50, :40]
    mask: NDArray[np.bool_] = (y - 20) ** 2 / 300 + (x - 18) ** 2 / 150 < 1
    return mask


def rectangle() -> NDArray[np.bool_]:
    mask = np.zeros((600, 800), bool)
    mask[300:310, 400:402] = True
    return mask


# Texts of pycocotools 2.0.
@pytest.mark.parametrize(
    ("mask", "expected"),
    [
        (ellipse(), "m97W18J4L4L4M2N2O0O2O0O2O00000001N101N101N2N3L4L4L6He="),
        (rectangle(), r"\eZ7:^b00TmX7"),
        (np.ones((3, 4), bool), "0<"),
        (np.zeros((3, 4), bool), "<"),
    ],
    ids=["ellipse", "rectangle", "whole image", "empty"],
)
def test_the_text_is_that_of_coco(mask: NDArray[np.bool_], expected: str) -> None:
    assert run_length.encode(mask.astype(np.int32), 1, box_of(mask)) == expected
    np.testing.assert_array_equal(run_length.decode(expected, *mask.shape), mask)


@pytest.mark.parametrize("damaged", ["", "=", "0O=", "P", "0\\", "<\x10", "<p", "<é"])
def test_damaged_text_is_refused(damaged: str) -> None:
    with pytest.raises(ValueError, match="damaged, or not of an image of 3 x 4 pixels"):
        run_length.decode(damaged, 3, 4)
