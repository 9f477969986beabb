"""The client decodes COCO's compressed run-lengths."""

import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from medserve_client import RunLength
from medserve_masks.run_length import encode


@given(arrays(np.bool_, array_shapes(min_dims=2, max_dims=2, max_side=12)), st.integers(1, 40))
def test_masks_that_the_server_encodes_are_decoded(
    small: np.ndarray[tuple[int, int], np.dtype[np.bool_]], scale: int
) -> None:
    mask = np.kron(small, np.ones((scale, scale), np.bool_))  # longer runs have more digits
    height, width = mask.shape
    counts = encode(mask.astype(np.int32), 1, np.array([0, 0, width, height]))
    np.testing.assert_array_equal(RunLength(counts, height, width).mask(), mask)


@pytest.mark.parametrize(
    ("counts", "box"),
    [
        (";4500ML142`0", np.s_[2:6, 1:5]),
        ("n11", np.s_[8:, 6:]),
        ("01n1", np.s_[:1, :1]),
        ("0o1", np.s_[:, :]),
        ("o1", np.s_[:0, :]),
    ],
)
def test_masks_of_pycocotools_are_decoded(counts: str, box: tuple[slice, slice]) -> None:
    expected = np.zeros((9, 7), np.bool_)
    expected[box] = True
    if counts.startswith(";"):
        expected[3, 3] = False  # a hole
    np.testing.assert_array_equal(RunLength(counts, 9, 7).mask(), expected)


@pytest.mark.parametrize(
    ("counts", "message"),
    [
        ("", "not in COCO's compressed format"),
        ("n1P", "not in COCO's compressed format"),  # a digit is missing
        ("n1é1", "not in COCO's compressed format"),
        ("PPPPPPPPPPPP1", "more than 7 digits"),
        ("n1", "do not encode a mask of 9 x 7 pixels"),
        ("@n11", "do not encode a mask of 9 x 7 pixels"),  # a negative length
    ],
)
def test_invalid_run_lengths_are_refused(counts: str, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        RunLength(counts, 9, 7).mask()


@given(st.text(max_size=20))
def test_any_text_is_decoded_or_refused(counts: str) -> None:
    try:
        mask = RunLength(counts, 9, 7).mask()
    except ValueError:
        return
    assert mask.shape == (9, 7)
