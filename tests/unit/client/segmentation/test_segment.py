"""Client and AsyncClient segment images with a real server: requests, results and errors."""

from collections.abc import Iterator

import numpy as np
import pytest

from medserve_client import (
    AsyncClient,
    Box,
    Client,
    ImageWarningKind,
    InferenceError,
    Interval,
    InvalidArgumentError,
    MaskFormat,
    MeasureResult,
    PixelSpacing,
    SegmentationResponse,
    SpacingSource,
)

MASK = np.zeros((9, 7), np.int32)
MASK[2:6, 1:5] = 1
MASK[3, 3] = 0
MASK[8, 6] = 2


@pytest.fixture
def client(laboratory: str) -> Iterator[Client]:
    with Client(laboratory) as client:
        yield client


def test_counts_sizes_and_masks_are_returned(client: Client) -> None:
    (result,) = client.segment(b"image", "cells").results
    assert (result.height, result.width, result.tiles, result.pixel_spacing, result.unit) == (9, 7, 2, None, "px")
    assert result.uncertainty == 0.125
    assert result.novelty is None
    assert [(one.kind, one.message) for one in result.warnings] == [(ImageWarningKind.TILED, "5 bytes in 2 tiles")]
    nucleus, cell = result.labels
    assert (nucleus.label, nucleus.area_px, nucleus.area_mm2, nucleus.area_share) == ("=nucleus/1", 16, None, 0.25)
    assert (nucleus.count, nucleus.count_interval) == (2, Interval(1.75, 2.5, 0.9))
    assert (cell.count_interval, cell.objects) == (None, ())
    assert cell.measures == (MeasureResult("cell circumference", "px", 20.0, None),)
    first, second = nucleus.objects
    assert (first.id, first.box, first.centroid, first.area_px) == (1, Box(1, 2, 4, 4), (3.0, 4.5), 15)
    assert (first.touches_border, second.touches_border) == (False, True)
    assert (first.major_axis, first.minor_axis, first.circularity, first.mean_probability) == (5, 3, 0.5, 0.75)
    assert first.run_length is not None
    np.testing.assert_array_equal(first.run_length.mask(), MASK == 1)
    np.testing.assert_array_equal(result.mask("=nucleus/1"), MASK)
    assert result.mask("cell").shape == MASK.shape
    with pytest.raises(KeyError):
        result.mask("nucleus")


def test_sizes_are_in_millimeters_if_the_pixel_spacing_is_given(client: Client) -> None:
    for result in client.segment([b"one", b"another"], "cells", pixel_spacing=(0.5, 0.25)).results:
        assert result.pixel_spacing == PixelSpacing(0.5, 0.25, SpacingSource.REQUEST)
        assert (result.unit, result.labels[0].area_mm2, result.labels[0].objects[0].perimeter) == ("mm", 4.0, 8.0)
        assert result.labels[1].measures[0].interval == Interval(18.5, 21.5, 0.95)


@pytest.mark.parametrize("spacing", [0.5, (0.5,), (1.0, 2.0, 3.0)])
def test_a_pixel_spacing_that_is_not_a_pair_is_refused(client: Client, spacing: tuple[float, float]) -> None:
    with pytest.raises(ValueError, match=r"pixel_spacing is .*; expected the distances between rows and between"):
        client.segment(b"image", "cells", pixel_spacing=spacing)


def test_maps_outlines_and_files_are_returned_only_on_request(client: Client) -> None:
    (plain,) = client.segment(b"image", "cells", masks=MaskFormat.NONE).results
    assert (plain.overlay_png, plain.uncertainty_png) == (b"", b"")
    assert (plain.labels[0].mask_png, plain.labels[0].probability_png) == (b"", b"")
    assert (plain.labels[0].objects[0].contour, plain.labels[0].objects[0].run_length) == (None, None)
    with pytest.raises(ValueError, match=r"call segment with masks=MaskFormat\.RUN_LENGTH"):
        plain.mask("=nucleus/1")
    (full,) = client.segment(
        b"image",
        "cells",
        frame=3,
        masks=MaskFormat.PNG,
        probability_maps=True,
        uncertainty_maps=True,
        contours=True,
        overlay=True,
        max_objects=1,
    ).results
    assert (full.overlay_png, full.uncertainty_png, full.frames) == (b"overlay", b"uncertainty", 4)
    assert (full.labels[0].mask_png, full.labels[0].probability_png) == (b"mask", b"probability")
    (only,) = full.labels[0].objects
    assert only.contour is not None
    assert only.contour.tolist() == [[1, 2], [5, 2], [5, 6], [1, 6]]


def test_an_invalid_image_is_named(client: Client) -> None:
    with pytest.raises(InvalidArgumentError) as caught:
        client.segment([b"image", b"bad"], "cells")
    assert [(one.field, one.item) for one in caught.value.violations] == [("images[1].image.encoded", 1)]


def test_a_stream_continues_after_an_invalid_batch(client: Client) -> None:
    outcomes = list(client.segment_stream([b"one", [b"bad"], [b"two", b"three"]], "cells", pixel_spacing=(1, 2)))
    assert [type(one) for one in outcomes] == [SegmentationResponse, InvalidArgumentError, SegmentationResponse]
    last = outcomes[-1]
    assert isinstance(last, SegmentationResponse)
    assert [one.pixel_spacing for one in last.results] == [PixelSpacing(1, 2, SpacingSource.REQUEST)] * 2
    with pytest.raises(TypeError, match="batches is a single image"):
        client.segment_stream("image.png", "cells")


async def test_the_asynchronous_client_returns_the_same(laboratory: str) -> None:
    async with AsyncClient(laboratory) as client:
        (result,) = (await client.segment(b"image", "cells", pixel_spacing=(0.5, 0.5), contours=True)).results
        np.testing.assert_array_equal(result.mask("=nucleus/1"), MASK)
        assert result.unit == "mm"
        with pytest.raises(InvalidArgumentError):
            await client.segment(b"bad", "cells")
        outcomes = [one async for one in client.segment_stream([b"one", b"bad"], "cells", masks=MaskFormat.NONE)]
    assert [isinstance(one, InferenceError) for one in outcomes] == [False, True]
