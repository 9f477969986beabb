"""Masks, objects, measures and maps of segmented images."""

import io

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from calls.segmentation import Gray, kinds, picture, segment, to_segment
from medserve_masks import ellipse_circumference
from medserve_masks.run_length import decode
from medserve_proto.v1 import image_segmentation_pb2 as pb
from medserve_proto.v1.image_segmentation_pb2_grpc import ImageSegmentationStub

HEIGHT, WIDTH = 50, 60


def disks(*circles: tuple[int, int, int], value: int = 230) -> Gray:
    """Returns an image of bright disks, each given by row, column and radius."""
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    image = np.zeros((HEIGHT, WIDTH), np.uint8)
    for row, column, radius in circles:
        image[(rows - row) ** 2 + (columns - column) ** 2 <= radius**2] = value
    return image


def enclosed(contour: NDArray[np.int64]) -> float:
    """Returns the area within a polygon, [corners, 2], by the shoelace formula."""
    x, y = contour.T
    return abs(float(np.dot(x, np.roll(y, 1)) - np.dot(y, np.roll(x, 1)))) / 2


TWO = disks((15, 15, 8), (30, 40, 12))


def test_mask_has_the_id_of_each_object_and_the_largest_is_first(stub: ImageSegmentationStub) -> None:
    (result,) = segment(stub, "spots", TWO, masks=pb.MASK_FORMAT_PNG)
    (label,) = result.labels
    mask = picture(label.mask_png)
    assert ((mask > 0) == (TWO > 127)).all()
    assert mask[30, 40] == 1
    assert mask[15, 15] == 2
    assert [found.id for found in label.objects] == [1, 2]
    assert [found.area_px for found in label.objects] == [int((mask == index).sum()) for index in (1, 2)]
    assert (label.label, label.count, label.area_px) == ("spot", 2, int((TWO > 127).sum()))
    assert label.area_share == pytest.approx(label.area_px / TWO.size)
    assert (result.height, result.width, result.tiles, result.frames) == (HEIGHT, WIDTH, 1, 1)


def test_run_lengths_decode_to_the_mask(stub: ImageSegmentationStub) -> None:
    ((by_png,), (by_run_length,)) = (
        segment(stub, "spots", TWO, masks=masks)[0].labels for masks in (pb.MASK_FORMAT_PNG, pb.MASK_FORMAT_RUN_LENGTH)
    )
    mask = picture(by_png.mask_png)
    assert not by_run_length.mask_png
    for found in by_run_length.objects:
        assert (decode(found.run_length, HEIGHT, WIDTH) == (mask == found.id)).all()


def test_objects_are_measured(stub: ImageSegmentationStub) -> None:
    (result,) = segment(stub, "spots", disks((25, 20, 12)))
    (found,) = result.labels[0].objects
    assert (found.box.left, found.box.top, found.box.width, found.box.height) == (8, 13, 25, 25)
    assert (found.centroid_x, found.centroid_y) == pytest.approx((20.5, 25.5))
    diameter = 2 * (found.area / np.pi) ** 0.5
    assert found.equivalent_diameter == pytest.approx(diameter)
    assert (found.major_axis, found.minor_axis) == pytest.approx((diameter, diameter), rel=0.01)
    assert found.perimeter == pytest.approx(np.pi * diameter, rel=0.02)
    assert found.circularity == pytest.approx(1, abs=0.05)
    assert found.mean_probability == pytest.approx(230 / 255)
    assert not found.touches_border
    (border,) = segment(stub, "spots", disks((25, 5, 12)))[0].labels[0].objects
    assert border.touches_border


def test_touching_cells_are_separated(stub: ImageSegmentationStub) -> None:
    touching = disks((25, 18, 10), (25, 38, 10), value=185)
    (together,) = segment(stub, "spots", touching)[0].labels
    (apart, _) = segment(stub, "cells", touching)[0].labels
    assert together.count == 1
    assert apart.count == 2
    assert apart.area_px == together.area_px
    assert sorted(round(found.centroid_x) for found in apart.objects) == pytest.approx([18, 38], abs=1)


def test_small_objects_are_discarded(stub: ImageSegmentationStub) -> None:
    (cells, _) = segment(stub, "cells", disks((15, 15, 8), (40, 50, 2)))[0].labels
    assert cells.count == 1
    assert cells.area_px == cells.objects[0].area_px


def test_labels_are_in_the_order_of_the_manifest(stub: ImageSegmentationStub) -> None:
    cells, gap = segment(stub, "cells", TWO)[0].labels
    assert (cells.label, gap.label) == ("cell", "gap")
    assert cells.area_px + gap.area_px == TWO.size
    assert (cells.count, gap.count) == (2, 1)


def test_only_the_largest_object_is_kept_and_its_holes_are_filled(stub: ImageSegmentationStub) -> None:
    ring = disks((20, 20, 16))
    ring[15:25, 15:25] = 0
    (head,) = segment(stub, "head", np.maximum(ring, disks((40, 52, 4))), masks=pb.MASK_FORMAT_PNG)[0].labels
    assert head.count == 1
    mask = picture(head.mask_png)
    assert mask[20, 20] == 1
    assert mask[40, 52] == 0


def test_fewer_objects_are_listed_on_request_without_changing_the_counts(stub: ImageSegmentationStub) -> None:
    (everything,) = segment(stub, "spots", TWO)[0].labels
    (label,) = segment(stub, "spots", TWO, max_objects=1)[0].labels
    assert list(label.objects) == list(everything.objects[:1])
    assert (label.count, label.area_px) == (everything.count, everything.area_px)


def test_contours_enclose_the_objects(stub: ImageSegmentationStub) -> None:
    (label,) = segment(stub, "spots", TWO, contours=True)[0].labels
    for found in label.objects:
        contour = np.array(found.contour, np.int64).reshape(-1, 2)
        assert enclosed(contour) == found.area_px
        assert contour.min(axis=0).tolist() == [found.box.left, found.box.top]


def test_maps_are_the_outputs_of_the_model(stub: ImageSegmentationStub) -> None:
    shades = np.linspace(0, 255, HEIGHT * WIDTH).reshape(HEIGHT, WIDTH).astype(np.uint8)
    (result,) = segment(stub, "cells", shades, probability_maps=True, uncertainty_maps=True)
    cells, gap = result.labels
    assert (picture(cells.probability_png) == shades).all()
    assert np.abs(picture(gap.probability_png) - (255.0 - shades)).max() <= 1
    # The disagreement is half of the probability, and the map has the larger one of the two labels.
    larger = np.maximum(shades, 255 - shades)
    assert np.abs(picture(result.uncertainty_png).astype(float) - larger).max() <= 1


def test_large_maps_are_reduced_and_masks_are_not(stub: ImageSegmentationStub) -> None:
    wide = np.full((20, 1030), 230, np.uint8)
    (result,) = segment(stub, "spots", wide, masks=pb.MASK_FORMAT_PNG, probability_maps=True, overlay=True)
    assert picture(result.labels[0].probability_png).shape == (10, 515)
    assert picture(result.overlay_png).shape == (10, 515, 3)
    assert picture(result.labels[0].mask_png).shape == (20, 1030)


def test_overlay_differs_from_the_image_at_the_outlines(stub: ImageSegmentationStub) -> None:
    (result,) = segment(stub, "spots", TWO, overlay=True)
    differs = (picture(result.overlay_png) != TWO[..., None]).any(axis=2)
    assert differs.any()
    assert not differs[TWO == 0].any()
    assert not differs[30, 40]


def test_uncertainty_is_the_mean_disagreement_near_the_objects(stub: ImageSegmentationStub) -> None:
    (result,) = segment(stub, "cells", TWO)
    near = [part for part in (TWO / 255, 1 - TWO / 255) if (part >= 0.05).any()]
    values = np.concatenate([part[part >= 0.05] for part in near]) / 2
    assert result.uncertainty == pytest.approx(values.mean(), rel=1e-5)
    assert not segment(stub, "spots", TWO)[0].HasField("uncertainty")


def test_novelty_is_reported_and_unfamiliar_images_have_a_warning(stub: ImageSegmentationStub) -> None:
    familiar, unfamiliar = segment(stub, "cells", TWO, np.full((HEIGHT, WIDTH), 240, np.uint8))
    assert "UNFAMILIAR" not in kinds(familiar)
    assert unfamiliar.novelty == pytest.approx(240)
    assert "UNFAMILIAR" in kinds(unfamiliar)
    assert not segment(stub, "spots", TWO)[0].HasField("novelty")


def test_count_has_an_interval_if_its_error_is_known(stub: ImageSegmentationStub) -> None:
    cells, gap = segment(stub, "cells", TWO)[0].labels
    assert cells.count_interval == pb.Interval(low=1, high=3, coverage=0.8)
    assert not gap.HasField("count_interval")
    (head,) = segment(stub, "head", TWO)[0].labels  # at most one object by definition
    assert not head.HasField("count_interval")


def test_derived_measure_is_in_millimeters_with_limits_of_agreement(stub: ImageSegmentationStub) -> None:
    image = disks((25, 30, 18))
    known = segment(stub, "head", to_segment(image, 0.5, 0.25), masks=pb.MASK_FORMAT_PNG)[0]
    (measure,) = known.labels[0].measures
    mask = picture(known.labels[0].mask_png) == 1
    # A pixel of the input, 32 x 48, is as large as 50 / 32 rows and 60 / 48 columns.
    pixel = (50 / 32 * 0.5 * 60 / 48 * 0.25) ** 0.5
    expected = ellipse_circumference(mask, (0.5, 0.25)) - 2 * pixel
    assert (measure.name, measure.unit) == ("circumference", "mm")
    assert measure.value == pytest.approx(expected)
    assert measure.interval.low == pytest.approx(expected - 0.5 - 1.5)
    assert measure.interval.high == pytest.approx(expected - 0.5 + 1.5)
    assert measure.interval.coverage == 0.95
    (unknown,) = segment(stub, "head", image)[0].labels[0].measures
    assert unknown.unit == "px"
    assert not unknown.HasField("interval")


def test_image_without_objects_has_no_measures(stub: ImageSegmentationStub) -> None:
    (result,) = segment(stub, "head", np.zeros((HEIGHT, WIDTH), np.uint8), masks=pb.MASK_FORMAT_PNG, overlay=True)
    (head,) = result.labels
    assert (head.count, head.area_px, len(head.objects), len(head.measures)) == (0, 0, 0, 0)
    assert not picture(head.mask_png).any()


def test_image_of_another_size_than_the_input_is_resized_with_a_warning(stub: ImageSegmentationStub) -> None:
    (result,) = segment(stub, "head", TWO, probability_maps=True)
    assert "RESIZED" in kinds(result)
    small = Image.fromarray(TWO).resize((48, 32), Image.Resampling.BILINEAR)
    expected = np.asarray(small.resize((WIDTH, HEIGHT), Image.Resampling.BILINEAR), np.float64)
    assert np.abs(picture(result.labels[0].probability_png) - expected).max() <= 1
    assert "RESIZED" not in kinds(segment(stub, "head", np.zeros((32, 48), np.uint8))[0])


def test_color_image_is_converted_with_a_warning(stub: ImageSegmentationStub) -> None:
    file = io.BytesIO()
    Image.fromarray(TWO).convert("RGB").save(file, "PNG")
    (result,) = segment(stub, "spots", file.getvalue())
    assert "COLOR_CONVERTED" in kinds(result)
    assert result.labels[0].count == 2
