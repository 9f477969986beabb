from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import ndimage

from medserve_masks import Tiles

Floats = NDArray[np.float32]

MARGIN = 3
STRIDE = 4

sides = st.integers(1, 60)


def surroundings(tile: Floats) -> Floats:
    """A network that needs three pixels of context in each direction."""
    outputs: Floats = ndimage.uniform_filter(tile, 2 * MARGIN + 1, mode="mirror")
    return outputs


def blocks(tile: Floats) -> Floats:
    """A strided network: the mean of each block of 4 x 4 pixels."""
    means: Floats = tile.reshape(tile.shape[0] // STRIDE, STRIDE, -1, STRIDE).mean(axis=(1, 3))
    return means.repeat(STRIDE, axis=0).repeat(STRIDE, axis=1)


def segment(image: NDArray[np.uint8], network: Callable[[Floats], Floats], max_side: int) -> Floats:
    height, width, _ = image.shape
    tiles = Tiles(height, width, stride=STRIDE, max_side=max_side, margin=MARGIN)
    result = np.zeros((1, height, width), np.float32)
    for index in range(len(tiles)):
        tile = tiles.cut(image, index)
        assert tile.shape == (*tiles.size, 1)
        tiles.blend(result, network(tile[..., 0].astype(np.float32))[np.newaxis], index)
    return result


@pytest.mark.parametrize("network", [surroundings, blocks])
@settings(max_examples=50)
@given(height=sides, width=sides)
def test_outputs_with_little_context_have_no_seams(
    network: Callable[[Floats], Floats], height: int, width: int
) -> None:
    image = np.random.default_rng(height * width).integers(0, 256, (height, width, 1), np.uint8)
    np.testing.assert_allclose(segment(image, network, 16), segment(image, network, 64), rtol=1e-5)


@settings(max_examples=50)
@given(height=sides, width=sides, stride=st.sampled_from([1, 2, 8]), margin=st.integers(0, 4))
def test_a_constant_is_reproduced(height: int, width: int, stride: int, margin: int) -> None:
    tiles = Tiles(height, width, stride=stride, max_side=24, margin=margin)
    result = np.zeros((2, height, width), np.float32)
    for index in range(len(tiles)):
        tiles.blend(result, np.full((2, *tiles.size), 0.7, np.float32), index)
    np.testing.assert_allclose(result, 0.7, rtol=1e-6)


@given(height=st.integers(1, 300), width=st.integers(1, 300))
def test_tiles_are_as_small_and_few_as_their_overlap_allows(height: int, width: int) -> None:
    tiles = Tiles(height, width, stride=STRIDE, max_side=64, margin=4)
    assert tiles.size == tuple(min(64, -(-extent // STRIDE) * STRIDE) for extent in (height, width))
    new = 64 - 3 * 4  # pixels that a further tile adds along an axis
    assert len(tiles) == np.prod([1 + max(0, -(-(extent - 64) // new)) for extent in (height, width)])


def test_outputs_near_the_inner_edges_of_a_tile_are_not_used() -> None:
    tiles = Tiles(16, 64, stride=16, max_side=32, margin=4)
    for index in range(len(tiles)):
        result = np.zeros((1, 16, 64), np.float32)
        tiles.blend(result, np.ones((1, *tiles.size), np.float32), index)
        used = np.flatnonzero(result[0, 0])
        start = index * 16
        assert used[0] == (0 if index == 0 else start + 4)
        assert used[-1] == (63 if index == len(tiles) - 1 else start + 27)


def test_an_image_of_one_pixel_is_padded() -> None:
    tile = Tiles(1, 1, stride=8, max_side=64, margin=4).cut(np.full((1, 1, 3), 7, np.uint8), 0)
    np.testing.assert_array_equal(tile, np.full((8, 8, 3), 7))


def test_a_small_image_is_padded_by_reflection() -> None:
    image = np.arange(6, dtype=np.uint8).reshape(1, 6, 1)
    tile = Tiles(1, 6, stride=8, max_side=64, margin=4).cut(image, 0)
    np.testing.assert_array_equal(tile[0, :, 0], [0, 1, 2, 3, 4, 5, 4, 3])


@pytest.mark.parametrize("max_side", [60, 32])
def test_tiles_too_small_for_their_margins_are_refused(max_side: int) -> None:
    with pytest.raises(ValueError, match=f"max_side is {max_side}; expected a multiple of the stride 16, 40 or more"):
        Tiles(100, 100, stride=16, max_side=max_side, margin=8)
