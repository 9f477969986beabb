"""Every kind of file is read as it was meant, or refused for the right reason."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from image_corpus import HEIGHT, WIDTH, Case, corpus
from image_files import DEFLATE, LZW, NONE, PACK_BITS, png, tiff
from medserve_images import ImageLimits, ImageReader, ImageRefused, Target

CASES = corpus()
LIMITS = ImageLimits(max_pixels=1_000_000)
# Of the reading itself, not of bringing pixels to the model's color and size.
OF_THE_TARGET = {"COLOR_CONVERTED", "RESIZED", "CROPPED"}


def reader(color: str, height: int = HEIGHT, width: int = WIDTH) -> ImageReader:
    return ImageReader(Target(height, width, "rgb" if color == "rgb" else "gray", "none", "bilinear"), LIMITS)


@pytest.mark.parametrize("case", [case for case in CASES if case.pixels is not None], ids=lambda case: case.name)
def test_is_read_as_a_viewer_shows_it(case: Case) -> None:
    assert case.pixels is not None
    pixels, warnings = reader("rgb" if case.pixels.ndim == 3 else "gray").read(case.data, 0)
    difference = pixels.reshape(case.pixels.shape).astype(int) - case.pixels
    assert np.abs(difference).max() <= case.tolerance
    assert sorted({warning.kind for warning in warnings} - OF_THE_TARGET) == sorted(case.kinds)


@pytest.mark.parametrize("case", [case for case in CASES if case.pixels is None], ids=lambda case: case.name)
@pytest.mark.parametrize("color", ["gray", "rgb"])
def test_is_refused_for_its_reason(case: Case, color: str) -> None:
    with pytest.raises(ImageRefused) as caught:
        reader(color).read(case.data, 0)
    assert case.reason in caught.value.reason


def test_no_two_files_of_the_corpus_share_a_name() -> None:
    assert len({case.name for case in CASES}) == len(CASES)


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_any_tiff_of_the_kinds_that_are_read(data: st.DataObject) -> None:
    """Any size, strips, tiles, planes, depth, byte order and compression."""
    height, width = data.draw(st.integers(1, 40), "height"), data.draw(st.integers(1, 40), "width")
    photometric = data.draw(st.sampled_from([0, 1, 2]), "photometric")
    bits = data.draw(st.sampled_from([8, 10, 12, 14, 16] if photometric == 2 else [1, 2, 4, 8, 10, 12, 14, 16]), "bits")
    compression = data.draw(st.sampled_from([NONE, DEFLATE, LZW, PACK_BITS]), "compression")
    seed = data.draw(st.integers(0, 2**32), "seed")
    count = 3 if photometric == 2 else 1
    samples = np.random.default_rng(seed).integers(0, 2**bits, (height, width, count))
    stored = 2**bits - 1 - samples if photometric == 0 else samples
    file = tiff(
        stored,
        bits,
        photometric,
        order=data.draw(st.sampled_from(["<", ">"]), "order"),
        compression=compression,
        predictor=data.draw(st.sampled_from([1, 2]), "predictor")
        if bits in {8, 16} and compression in {DEFLATE, LZW}
        else 1,
        rows=data.draw(st.none() | st.integers(1, height), "rows"),
        tile=data.draw(st.none() | st.tuples(st.sampled_from([16, 32]), st.sampled_from([16, 48])), "tile"),
        separate=data.draw(st.booleans(), "separate"),
        fill_order=data.draw(st.sampled_from([1, 2]), "fill order"),
        big=data.draw(st.booleans(), "big"),
    )
    pixels, _ = reader("rgb" if count == 3 else "gray", height, width).read(file)
    np.testing.assert_allclose(pixels, samples * (255 / (2**bits - 1)), atol=1)


@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_any_png_of_the_kinds_that_are_read(data: st.DataObject) -> None:
    height, width = data.draw(st.integers(1, 40), "height"), data.draw(st.integers(1, 40), "width")
    color, depth = data.draw(st.sampled_from([(0, 1), (0, 2), (0, 4), (0, 8), (0, 16), (2, 8), (2, 16)]), "kind")
    count = 3 if color == 2 else 1
    generator = np.random.default_rng(data.draw(st.integers(0, 2**32), "seed"))
    samples = generator.integers(0, 2**depth, (height, width, count))
    file = png(samples, depth, color, interlaced=data.draw(st.booleans(), "interlaced"))
    pixels, _ = reader("rgb" if count == 3 else "gray", height, width).read(file)
    np.testing.assert_allclose(pixels, samples * (255 / (2**depth - 1)), atol=1)


SMALL = [case.data for case in CASES[::3] if not case.name.startswith("dicom")]


@settings(max_examples=500, deadline=None)
@given(data=st.data())
def test_a_damaged_file_of_any_kind_is_read_or_refused(data: st.DataObject) -> None:
    content = bytearray(data.draw(st.sampled_from(SMALL)))
    for _ in range(data.draw(st.integers(1, 8))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    try:
        pixels, _ = reader("gray").read(bytes(content[: data.draw(st.none() | st.integers(0, len(content)))]))
    except ImageRefused:
        return
    assert pixels.shape == (HEIGHT, WIDTH, 1)


def test_a_tiff_whose_tiles_pad_far_more_than_they_hold_is_refused() -> None:
    samples = np.zeros((4000, 1, 1), int)
    data = tiff(samples, 8, 1, tile=(16, 60_000), compression=DEFLATE)
    with pytest.raises(ImageRefused, match="too large") as caught:
        reader("gray").read(data)
    assert caught.value.limit == "decompression"


@pytest.mark.parametrize("big", [False, True])
def test_a_tiff_of_very_many_tiny_strips_is_refused(*, big: bool) -> None:
    samples = np.zeros((900_000, 1, 1), int)
    data = tiff(samples, 8, 1, big=big, tags={278: (4, [1]), 273: (4, [8] * 900_000), 279: (4, [1] * 900_000)})
    with pytest.raises(ImageRefused) as caught:
        reader("gray").read(data)
    assert caught.value.limit == "image_parts"


def test_a_tiff_whose_pages_form_a_loop_is_read_once() -> None:
    samples = np.arange(HEIGHT * WIDTH).reshape(HEIGHT, WIDTH, 1) % 256
    data = bytearray(tiff(samples, 8, 1))
    data[-4:] = data[4:8]  # the directory follows itself
    pixels, _ = reader("gray").read(bytes(data))
    np.testing.assert_array_equal(pixels, samples)
