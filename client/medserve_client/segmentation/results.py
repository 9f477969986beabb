"""Typed results of segmentation."""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from medserve_client.results import ImageWarning, OpenEnum
from medserve_client.segmentation.run_length import RunLength


class MaskFormat(IntEnum):
    """Whether and how the objects' pixels are returned.

    PNG: a 16-bit gray file for each label, whose values are the IDs of objects. RUN_LENGTH: one run-length encoding for
    each listed object.
    """

    NONE = 0
    PNG = 1
    RUN_LENGTH = 2


class SpacingSource(OpenEnum):
    """The source of a pixel spacing: the request, or an element of a DICOM file.

    IMAGER_PIXEL_SPACING is the distance at the detector, which is larger than in the body.
    """

    UNSPECIFIED = 0
    REQUEST = 1
    PIXEL_SPACING = 2
    IMAGER_PIXEL_SPACING = 3
    ULTRASOUND_REGION = 4


@dataclass(frozen=True, slots=True)
class PixelSpacing:
    """The distance between the centers of neighboring pixels in mm, between rows (vertically) and between columns."""

    row_mm: float
    column_mm: float
    source: SpacingSource


@dataclass(frozen=True, slots=True)
class Box:
    """A bounding box in pixels of the image."""

    left: int
    top: int
    width: int
    height: int


@dataclass(frozen=True, slots=True)
class Interval:
    """An interval that contains the true value for a fraction of the validation images, `coverage`, e.g. 0.9."""

    low: float
    high: float
    coverage: float


# Classes with array attributes compare by identity: == of two arrays is an array.
@dataclass(frozen=True, slots=True, eq=False)
class SegmentedObject:
    """An object with its sizes: in mm and mm² if the image's pixel spacing is known, and in pixels otherwise.

    Attributes:
        id: from 1; its value in the masks of its label.
        box: bounding box.
        centroid: x and y in pixels; (0, 0) is the upper left corner of the first pixel.
        area_px: number of pixels.
        area: area.
        equivalent_diameter: diameter of the circle with the same area.
        major_axis: major axis of the ellipse with the same second moments.
        minor_axis: minor axis of that ellipse.
        perimeter: length of the outline.
        circularity: 4 * pi * area / perimeter², at most 1: 1 for a circle.
        mean_probability: mean probability of its pixels, from 0 to 1.
        touches_border: whether it may continue outside of the image.
        contour: uint32 [corners, 2], the outer outline as x and y in pixels; None unless requested.
        run_length: its pixels, see `RunLength.mask`; None unless requested.
    """

    id: int
    box: Box
    centroid: tuple[float, float]
    area_px: int
    area: float
    equivalent_diameter: float
    major_axis: float
    minor_axis: float
    perimeter: float
    circularity: float
    mean_probability: float
    touches_border: bool
    contour: NDArray[np.uint32] | None = None
    run_length: RunLength | None = None


@dataclass(frozen=True, slots=True)
class MeasureResult:
    """A derived measure, e.g. a circumference.

    Attributes:
        name: name in the manifest, e.g. "head circumference".
        unit: "mm", or "px" if the pixel spacing is not known.
        value: in that unit.
        interval: 95 % limits of agreement with the reference; None if the unit is "px".
    """

    name: str
    unit: str
    value: float
    interval: Interval | None


@dataclass(frozen=True, slots=True)
class LabelResult:
    """What was found of one label.

    Attributes:
        label: label name.
        area_px: number of pixels.
        area_mm2: None if the pixel spacing is not known.
        area_share: share of the image, from 0 to 1.
        count: number of objects.
        count_interval: None if the model does not know the error of its counts.
        objects: largest first, up to `max_objects`.
        measures: derived measures of the largest object, in the order of the manifest.
        mask_png: 16-bit gray PNG of the image's size: 0 is background, other values are the IDs of objects, and 65,535
            also stands for all higher IDs; empty unless requested.
        probability_png: 8-bit gray PNG of the probability, of which 255 is 1, reduced to at most 1,024 pixels per side;
            empty unless requested.
    """

    label: str
    area_px: int
    area_mm2: float | None
    area_share: float
    count: int
    count_interval: Interval | None
    objects: tuple[SegmentedObject, ...]
    measures: tuple[MeasureResult, ...]
    mask_png: bytes = b""
    probability_png: bytes = b""


@dataclass(frozen=True, slots=True)
class SegmentationResult:
    """The result for one image.

    Attributes:
        height: height of the image in pixels.
        width: width of the image in pixels.
        labels: in the order of the manifest.
        pixel_spacing: None if it is not known.
        warnings: how the image was altered, what may make the result less reliable, and whether the image is unlike
            the training data.
        uncertainty: mean standard deviation of the ensemble members' probabilities in and near the objects; None if
            the model is not an ensemble.
        novelty: distance from the training data; None if the model does not measure it.
        uncertainty_png: 8-bit gray PNG of that standard deviation, of which 255 is 0.5, reduced as `probability_png`;
            empty unless requested.
        overlay_png: the image with the outlines of all objects, reduced in the same way; empty unless requested.
        sop_instance_uid: SOP Instance UID of a DICOM file; empty for other files, or if it has none.
        frames: number of frames of a DICOM file; 1 for other images.
        tiles: number of tiles in which the image was segmented.
    """

    height: int
    width: int
    labels: tuple[LabelResult, ...]
    pixel_spacing: PixelSpacing | None
    warnings: tuple[ImageWarning, ...]
    uncertainty: float | None = None
    novelty: float | None = None
    uncertainty_png: bytes = b""
    overlay_png: bytes = b""
    sop_instance_uid: str = ""
    frames: int = 1
    tiles: int = 1

    @property
    def unit(self) -> str:
        """Unit of the objects' lengths: "mm", or "px" if the pixel spacing is not known."""
        return "px" if self.pixel_spacing is None else "mm"

    def mask(self, label: str) -> NDArray[np.int32]:
        """Returns the pixels of a label's listed objects: int32 [height, width], their IDs, and 0 for background.

        Raises:
            KeyError: the model has no such label.
            ValueError: the masks were not requested as run-lengths, or are invalid.
        """
        objects = {one.label: one.objects for one in self.labels}[label]
        flat = np.zeros(self.width * self.height, np.int32)
        for one, (start, end) in _runs(objects):
            flat[start:end] = one.id
        return flat.reshape(self.width, self.height).T


def _runs(objects: tuple[SegmentedObject, ...]) -> Iterator[tuple[SegmentedObject, tuple[int, int]]]:
    for one in objects:
        if one.run_length is None:
            raise ValueError("there are no run-lengths; call segment with masks=MaskFormat.RUN_LENGTH")
        for run in one.run_length.runs():
            yield one, run


@dataclass(frozen=True, slots=True)
class SegmentationResponse:
    """The response to one request: one result for each image, in request order.

    `request_id` identifies the request in the server's log.
    """

    model_name: str
    model_version: str
    results: tuple[SegmentationResult, ...]
    request_id: str = ""
