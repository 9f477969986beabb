"""The components of explanations, each compared with its definition."""

import io
import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

from medserve_images import Pixels
from medserve_server.explain import occlusion, shapley
from medserve_server.explain.confidence import spread
from medserve_server.explain.overlay import draw, overlay_size

GAMES = st.integers(1, 6).flatmap(
    lambda count: hnp.arrays(np.float64, 2**count, elements=st.floats(-1, 1, allow_subnormal=False))
)
NUMBERS = st.sampled_from([0.0, 1.0, 2.0, 3.5])


@given(GAMES)
def test_shapley_values_are_the_mean_over_all_orders(game: np.ndarray[tuple[int], np.dtype[np.float64]]) -> None:
    count = game.size.bit_length() - 1
    mean = np.zeros(count)
    for order in itertools.permutations(range(count)):
        coalition = 0
        for feature in order:
            mean[feature] += game[coalition | 1 << feature] - game[coalition]
            coalition |= 1 << feature
    found = shapley.shapley_values(game)
    np.testing.assert_allclose(found, mean / math.factorial(count), atol=1e-12)
    assert game[0] + found.sum() == pytest.approx(game[-1], abs=1e-12)


@given(
    hnp.arrays(np.float32, 4, elements=NUMBERS | st.just(math.nan)),
    hnp.arrays(np.float32, st.tuples(st.integers(1, 5), st.just(4)), elements=NUMBERS),
)
def test_every_coalition_maps_to_its_hybrid_row(
    patient: np.ndarray[tuple[int], np.dtype[np.float32]], background: np.ndarray[tuple[int, int], np.dtype[np.float32]]
) -> None:
    rows, position = shapley.hybrids(patient, background)
    assert len(rows) == shapley.rows_needed(patient, background) <= 16 * len(background)
    for coalition, other in itertools.product(range(16), range(len(background))):
        expected = [patient[bit] if coalition >> bit & 1 else background[other][bit] for bit in range(4)]
        np.testing.assert_array_equal(rows[position[coalition, other]], expected)


@pytest.mark.parametrize(
    ("height", "width", "channels"), [(28, 28, 1), (28, 28, 3), (3, 50, 1), (224, 225, 3), (1, 1, 1)]
)
def test_patches_cover_their_cell_of_the_map(height: int, width: int, channels: int) -> None:
    picture = np.random.default_rng(0).integers(0, 256, (height, width, channels), dtype=np.uint8)
    rows, columns = occlusion.grid(height, width)
    assert (rows, columns) == (min(7, height), min(7, width))
    covered = occlusion.cover(picture)
    assert covered.shape == (rows * columns, height, width, channels)
    mean = picture.reshape(-1, channels).mean(axis=0).round()
    for index, one in enumerate(covered):
        row, column = divmod(index, columns)
        inside = np.zeros((height, width), bool)
        inside[row * height // rows : (row + 1) * height // rows] = True
        inside[:, : column * width // columns] = False
        inside[:, (column + 1) * width // columns :] = False
        changed = (one != picture).any(axis=2)
        assert (one[changed] == mean).all()
        assert (one[inside] == mean).mean() > 0.8
        assert changed.sum() <= 4 * (height / rows + 1) * (width / columns + 1)


def test_an_occlusion_map_is_the_drop_in_probability() -> None:
    falls = occlusion.probability_drops(0.75, np.arange(49, dtype=np.float32) / 49, 28, 28)
    assert falls.shape == (7, 7)
    np.testing.assert_allclose(falls[2, 3], 0.75 - 17 / 49)


def test_the_spread_is_the_standard_deviation_over_the_members() -> None:
    members = np.random.default_rng(0).random((6, 5, 3), np.float32)
    np.testing.assert_allclose(np.asarray(spread(members), float), members.std(axis=1), rtol=1e-5)


def pixels(png: bytes) -> np.ndarray[tuple[int, int, int], np.dtype[np.int64]]:
    with Image.open(io.BytesIO(png)) as image:
        assert (image.format, image.mode) == ("PNG", "RGB")
        return np.asarray(image, np.int64)


@pytest.mark.parametrize("shape", [(28, 28, 1), (28, 28, 3), (300, 500, 3), (1, 3, 1)])
def test_an_overlay_has_the_documented_size_and_colors_by_sign(shape: tuple[int, int, int]) -> None:
    picture: Pixels = np.full(shape, 128, np.uint8)
    values = np.zeros((7, 7), np.float32)
    values[:2, :2], values[-2:, -2:] = 0.5, -0.25
    drawing = pixels(draw(picture, values))
    assert drawing.shape == (*overlay_size(*shape[:2]), 3)
    assert min(drawing.shape[:2]) >= 224
    bottom = overlay_size(*shape[:2])[0] - 30
    red, blue, middle = drawing[3, 3], drawing[bottom, -4], drawing[bottom // 2, drawing.shape[1] // 2]
    assert red[0] > red[2] + 60
    assert blue[2] > blue[0] + 30
    assert np.abs(middle - 128).max() <= 2


def test_a_map_of_zeros_leaves_the_image_unchanged() -> None:
    picture = np.random.default_rng(0).integers(0, 256, (28, 28, 1), dtype=np.uint8)
    rounding = np.random.default_rng(0).normal(0, 1e-8, (7, 7))
    drawing = pixels(draw(picture, rounding))
    np.testing.assert_array_equal(drawing[: 8 * 28 : 8, ::8, 0], picture[..., 0])
