"""Reads the distance between the pixels of a DICOM file.

It never refuses a file: elements that do not state a distance are ignored, with a warning.
"""

import struct
from collections.abc import Callable

from pydicom.dataset import Dataset

from medserve_images.dicom.elements import NUMBER, integer, items_of, raw_element, text
from medserve_images.dicom.header import functional_groups
from medserve_images.spacing import MAX_SPACING, Spacing, is_plausible
from medserve_images.warning import ImageWarning

Distances = tuple[float, float]
"""Between rows and between columns, in millimeters."""

MAX_REGIONS = 64
# Values of elements of an ultrasound region (PS3.3 C.8.5.5.1).
TWO_DIMENSIONAL = 1
CENTIMETERS = 3


def read_spacing(dataset: Dataset, frame: int, warnings: list[ImageWarning]) -> Spacing | None:
    """Reads PixelSpacing, else ImagerPixelSpacing, else the scale of the ultrasound regions.

    PixelSpacing that equals ImagerPixelSpacing is that at the detector (PS3.3 10.7.1.3).

    Args:
        dataset: The elements of the file.
        frame: Frame number, from 0.
        warnings: Receives a warning about each element that states no plausible distance.
    """
    pixel = _plausible("PixelSpacing", lambda: _pixel_spacing(dataset, frame), warnings)
    imager = _plausible("ImagerPixelSpacing", lambda: _pair(dataset, "ImagerPixelSpacing"), warnings)
    if pixel is not None:
        return Spacing(*pixel, "PIXEL_SPACING", at_detector=pixel == imager)
    if imager is not None:
        return Spacing(*imager, "IMAGER_PIXEL_SPACING", at_detector=True)
    region = _plausible("SequenceOfUltrasoundRegions", lambda: _scale_of_regions(dataset), warnings)
    return Spacing(*region, "ULTRASOUND_REGION") if region is not None else None


def _plausible(keyword: str, read: Callable[[], Distances | None], warnings: list[ImageWarning]) -> Distances | None:
    """Returns the distances that an element states; None, with a warning, if they are not plausible."""
    try:
        distances = read()
    except Exception:  # noqa: BLE001 - pydicom may raise anything for corrupt elements
        distances = 0.0, 0.0
    if distances is None or all(map(is_plausible, distances)):
        return distances
    expected = f"one distance between rows and one between columns, above 0 and up to {MAX_SPACING:g} mm"
    warnings.append(ImageWarning("ELEMENT_IGNORED", f"its {keyword} does not state {expected}, and is ignored"))
    return None


def _pixel_spacing(dataset: Dataset, frame: int) -> Distances | None:
    """Reads PixelSpacing, which the functional groups of an enhanced file replace."""
    found = _pair(dataset, "PixelSpacing")
    for group in functional_groups(dataset, frame, "PixelMeasuresSequence"):
        found = _pair(group, "PixelSpacing") or found
    return found


def _pair(dataset: Dataset, keyword: str) -> Distances | None:
    """Reads two decimal numbers; None if the element is missing or empty.

    Raises:
        ImageRefused: The element is not a text.
        ValueError: There are not two decimal numbers.
    """
    if not (value := text(dataset, keyword)):
        return None
    numbers = [part.strip(" \0") for part in value.split("\\")]
    if not all(map(NUMBER.fullmatch, numbers)):
        raise ValueError("not decimal numbers")
    row, column = map(float, numbers)
    return row, column


def _scale_of_regions(dataset: Dataset) -> Distances | None:
    """Reads the common scale of all two-dimensional regions in centimeters; None if there are none.

    Raises:
        ValueError: The regions have different scales, or there are too many of them.
    """
    regions = items_of(dataset, "SequenceOfUltrasoundRegions") or ()
    if len(regions) > MAX_REGIONS:
        raise ValueError("too many regions")
    scales = {_scale(region) for region in regions if _is_in_centimeters(region)}
    if not scales:
        return None
    (scale,) = scales
    return scale


def _is_in_centimeters(region: Dataset) -> bool:
    units = {integer(region, f"PhysicalUnits{axis}Direction") for axis in "XY"}
    return integer(region, "RegionSpatialFormat") == TWO_DIMENSIONAL and units == {CENTIMETERS}


def _scale(region: Dataset) -> Distances:
    """Returns the distances of a region, whose sign in the file is the direction of the axis."""
    row, column = (10 * abs(_double(region, f"PhysicalDelta{axis}")) for axis in "YX")
    return row, column


def _double(dataset: Dataset, keyword: str) -> float:
    """Reads a number in double precision.

    Raises:
        ImageRefused: The element is a sequence.
        struct.error: The element is missing, or does not have the size of one number.
    """
    element = raw_element(dataset, keyword)
    if element is None:
        raise struct.error(f"{keyword} is missing")
    number: float
    (number,) = struct.unpack("<d" if element.is_little_endian else ">d", element.value or b"")
    return number
