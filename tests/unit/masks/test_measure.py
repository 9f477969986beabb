import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hypothesis_numpy
from numpy.typing import NDArray
from scipy.special import ellipe
from skimage.measure import perimeter_crofton, regionprops

from medserve_masks import ellipse_circumference, measure_objects

Labels = NDArray[np.int32]

maps = hypothesis_numpy.arrays(np.int32, st.tuples(st.integers(1, 12), st.integers(1, 12)), elements=st.integers(0, 3))
spacings = st.tuples(st.floats(0.1, 10), st.floats(0.1, 10))


def consecutive(labels: Labels) -> Labels:
    return np.unique(np.append(labels, 0), return_inverse=True)[1][:-1].reshape(labels.shape).astype(np.int32)


def ellipse(height: float, width: float, center: tuple[float, float], spacing: tuple[float, float]) -> Labels:
    """Returns an ellipse with these axes in millimeters, around a center in pixels, in an image of 80 x 100 pixels."""
    y, x = np.indices((80, 100))
    row, column = spacing
    inside = ((y - center[0]) * row * 2 / height) ** 2 + ((x - center[1]) * column * 2 / width) ** 2 <= 1
    return inside.astype(np.int32)


def exact_circumference(height: float, width: float) -> float:
    """Returns the circumference of an ellipse with these axes, by the elliptic integral."""
    short, long = sorted([height, width])
    return float(2 * long * ellipe(1 - (short / long) ** 2))


@given(maps, spacings)
def test_measures_are_those_of_scikit_image(values: Labels, spacing: tuple[float, float]) -> None:
    labels = consecutive(values)
    probabilities = np.random.default_rng(labels.size).random(labels.shape, np.float32)
    objects = measure_objects(labels, probabilities, spacing)
    regions = regionprops(labels, probabilities, spacing=spacing)  # type: ignore[no-untyped-call]
    assert len(objects.areas) == len(regions)
    for index, region in enumerate(regions):
        top, left, bottom, right = region.bbox
        assert objects.boxes[index].tolist() == [left, top, right - left, bottom - top]
        assert objects.touches_border[index] == (
            top == 0 or left == 0 or bottom == labels.shape[0] or right == labels.shape[1]
        )
        assert objects.areas_px[index] == region.num_pixels
        assert objects.areas[index] == pytest.approx(region.area)
        assert objects.circularities[index] == pytest.approx(
            min(4 * np.pi * objects.areas[index] / objects.perimeters[index] ** 2, 1)
        )
        assert objects.equivalent_diameters[index] == pytest.approx(region.equivalent_diameter_area)
        assert objects.mean_probabilities[index] == pytest.approx(region.intensity_mean)
        y, x = np.array(region.centroid) / spacing + 0.5
        assert objects.centroids[index] == pytest.approx([x, y])
        assert objects.major_axes[index] == pytest.approx(region.axis_major_length, abs=1e-4)
        assert objects.minor_axes[index] == pytest.approx(region.axis_minor_length, abs=1e-4)


@given(maps)
def test_perimeters_are_those_of_scikit_image(values: Labels) -> None:
    labels = consecutive(values)
    perimeters = measure_objects(labels, np.ones(labels.shape, np.float32)).perimeters
    for index, perimeter in enumerate(perimeters, start=1):
        expected = perimeter_crofton(labels == index, directions=4)  # type: ignore[no-untyped-call]
        assert perimeter == pytest.approx(expected)


@pytest.mark.parametrize("spacing", [(1.0, 1.0), (0.7, 1.4), (2.0, 1.0)])
@pytest.mark.parametrize("diameter", [16, 40])
def test_circles_are_measured_without_bias(diameter: float, spacing: tuple[float, float]) -> None:
    ratios = []
    for center in np.random.default_rng(0).uniform(39, 41, (30, 2)).tolist():
        circle = ellipse(diameter, diameter, center, spacing)
        objects = measure_objects(circle, circle.astype(np.float32), spacing)
        lengths = [objects.perimeters[0] / np.pi, objects.equivalent_diameters[0], objects.major_axes[0]]
        ratios.append([*np.array(lengths) / diameter, objects.circularities[0]])
    assert np.mean(ratios, axis=0) == pytest.approx(1, abs=0.03)


@pytest.mark.parametrize(("height", "width"), [(15, 60), (60, 15), (20, 50)])
@pytest.mark.parametrize(("spacing", "tolerance"), [((1.0, 1.0), 0.02), ((2.0, 1.0), 0.07), ((1.0, 2.0), 0.07)])
def test_the_perimeter_of_an_ellipse(
    height: float, width: float, spacing: tuple[float, float], tolerance: float
) -> None:
    labels = ellipse(height, width, (39.6, 48.7), spacing)
    perimeter = measure_objects(labels, labels.astype(np.float32), spacing).perimeters[0]
    assert perimeter == pytest.approx(exact_circumference(height, width), rel=tolerance)


@pytest.mark.parametrize(("height", "width"), [(40, 40), (30, 60), (60, 15)])
@pytest.mark.parametrize("spacing", [(1.0, 1.0), (0.8, 1.1)])
def test_the_circumference_of_an_ellipse(height: float, width: float, spacing: tuple[float, float]) -> None:
    mask = ellipse(height, width, (39.6, 48.7), spacing) > 0
    assert ellipse_circumference(mask, spacing) == pytest.approx(exact_circumference(height, width), rel=0.01)


def test_a_rotated_ellipse_has_the_same_axes() -> None:
    y, x = np.indices((100, 100)) - 50
    u, v = 0.6 * x + 0.8 * y, 0.6 * y - 0.8 * x
    labels = ((u / 40) ** 2 + (v / 20) ** 2 <= 1).astype(np.int32)
    objects = measure_objects(labels, labels.astype(np.float32))
    assert objects.major_axes[0] == pytest.approx(80, rel=0.01)
    assert objects.minor_axes[0] == pytest.approx(40, rel=0.01)


def test_the_circumference_of_one_pixel_is_zero() -> None:
    mask = np.zeros((3, 3), bool)
    mask[1, 2] = True
    assert ellipse_circumference(mask, (0.5, 0.5)) == 0


def test_only_the_first_objects_are_measured() -> None:
    labels = np.array([[1, 1, 2], [1, 3, 2]], np.int32)
    probabilities = np.random.default_rng(0).random((2, 3), np.float32)
    every = measure_objects(labels, probabilities)
    some = measure_objects(labels, probabilities, max_objects=2)
    for field in dataclasses.fields(every):
        np.testing.assert_array_equal(getattr(some, field.name), getattr(every, field.name)[:2])


def test_a_map_without_objects_has_no_measures() -> None:
    objects = measure_objects(np.zeros((4, 5), np.int32), np.zeros((4, 5), np.float32))
    for field in dataclasses.fields(objects):
        assert len(getattr(objects, field.name)) == 0
    assert objects.boxes.shape == (0, 4)


def test_images_of_several_bands_are_measured_as_a_whole() -> None:
    labels = np.zeros((5, 300_000), np.int32)
    labels[0:4, 10:14] = 1
    labels[2:5, 299_990:] = 2
    objects = measure_objects(labels, np.full(labels.shape, 0.25, np.float32))
    assert objects.boxes.tolist() == [[10, 0, 4, 4], [299_990, 2, 10, 3]]
    assert objects.centroids.tolist() == [[12, 2], [299_995, 3.5]]
    assert objects.mean_probabilities.tolist() == [0.25, 0.25]
    for shape, perimeter in zip(((4, 4), (3, 10)), objects.perimeters, strict=True):
        expected = perimeter_crofton(np.ones(shape), directions=4)  # type: ignore[no-untyped-call]
        assert perimeter == pytest.approx(expected)
