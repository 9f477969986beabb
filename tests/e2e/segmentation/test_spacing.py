"""The pixel spacing: from the DICOM file, else from the request; sizes in millimeters follow from it."""

from typing import Any

import grpc
import numpy as np
import pytest
from pydicom.dataset import Dataset

from calls.bad_request import code_of, violations
from calls.segmentation import kinds, segment, to_segment
from medserve_proto.v1 import image_segmentation_pb2 as pb
from medserve_proto.v1.image_segmentation_pb2_grpc import ImageSegmentationStub
from samples.dicom_files import dicom, item

SQUARE = np.zeros((40, 50), np.uint8)
SQUARE[10:30, 20:30] = 255
CENTIMETERS = 3


def region(**changes: object) -> Dataset:
    """Returns a two-dimensional ultrasound region of 0.2 mm by 0.1 mm, except for the changed elements."""
    described: dict[str, object] = {
        "RegionSpatialFormat": 1,
        "PhysicalUnitsXDirection": CENTIMETERS,
        "PhysicalUnitsYDirection": CENTIMETERS,
        "PhysicalDeltaX": 0.01,
        "PhysicalDeltaY": -0.02,
    }
    return item(**(described | changes))


SOURCES: dict[str, tuple[dict[str, Any], tuple[float, float], str]] = {
    "pixel spacing": ({"PixelSpacing": [0.5, 0.25]}, (0.5, 0.25), "SOURCE_PIXEL_SPACING"),
    "at the detector": ({"ImagerPixelSpacing": [0.5, 0.25]}, (0.5, 0.25), "SOURCE_IMAGER_PIXEL_SPACING"),
    "both": (
        {"PixelSpacing": [0.4, 0.2], "ImagerPixelSpacing": [0.5, 0.25]},
        (0.4, 0.2),
        "SOURCE_PIXEL_SPACING",
    ),
    "ultrasound": ({"SequenceOfUltrasoundRegions": [region()]}, (0.2, 0.1), "SOURCE_ULTRASOUND_REGION"),
    "several regions": (
        {"SequenceOfUltrasoundRegions": [region(RegionSpatialFormat=3, PhysicalDeltaX=9), region(), region()]},
        (0.2, 0.1),
        "SOURCE_ULTRASOUND_REGION",
    ),
    "frames": (
        {
            "SharedFunctionalGroupsSequence": [
                item(PixelMeasuresSequence=[item(PixelSpacing=[0.5, 0.25])]),
            ]
        },
        (0.5, 0.25),
        "SOURCE_PIXEL_SPACING",
    ),
}


@pytest.mark.parametrize("name", SOURCES)
def test_dicom_file_states_the_spacing(stub: ImageSegmentationStub, name: str) -> None:
    elements, spacing, source = SOURCES[name]
    (result,) = segment(stub, "spots", dicom(SQUARE, **elements))
    found = result.pixel_spacing
    assert (found.row_mm, found.column_mm) == pytest.approx(spacing)
    assert pb.PixelSpacing.Source.Name(found.source) == source
    assert ("MAGNIFIED" in kinds(result)) == (name == "at the detector")
    assert "SPACING_UNKNOWN" not in kinds(result)
    assert result.labels[0].area_mm2 == pytest.approx(200 * spacing[0] * spacing[1])
    assert result.sop_instance_uid == "1.2.3.4"


def test_spacing_of_an_image_that_was_not_corrected_for_magnification_has_a_warning(
    stub: ImageSegmentationStub,
) -> None:
    """PS3.3 10.7.1.3: PixelSpacing then equals ImagerPixelSpacing."""
    (result,) = segment(stub, "spots", dicom(SQUARE, PixelSpacing=[0.2, 0.2], ImagerPixelSpacing=[0.2, 0.2]))
    assert result.pixel_spacing.source == pb.PixelSpacing.SOURCE_PIXEL_SPACING
    assert "MAGNIFIED" in kinds(result)


def test_sizes_follow_from_the_spacing_of_the_request(stub: ImageSegmentationStub) -> None:
    known, unknown = segment(stub, "spots", to_segment(SQUARE, 0.5, 0.25), SQUARE)
    assert known.pixel_spacing.source == pb.PixelSpacing.SOURCE_REQUEST
    assert known.labels[0].area_mm2 == pytest.approx(25)
    (found,) = known.labels[0].objects
    assert found.area == pytest.approx(25)
    assert found.major_axis == pytest.approx(20 * 0.5 * (4 / 3) ** 0.5, rel=0.01)
    assert found.centroid_y == pytest.approx(20)
    assert not unknown.HasField("pixel_spacing")
    assert not unknown.labels[0].HasField("area_mm2")
    assert unknown.labels[0].objects[0].area == 200
    assert "SPACING_UNKNOWN" in kinds(unknown)
    assert "SPACING_UNKNOWN" not in kinds(known)


def test_request_that_repeats_the_spacing_of_the_file_is_accepted(stub: ImageSegmentationStub) -> None:
    (result,) = segment(stub, "spots", to_segment(dicom(SQUARE, PixelSpacing=[0.5, 0.25]), 0.5001, 0.25))
    assert result.pixel_spacing.row_mm == 0.5


def test_request_that_contradicts_the_file_is_refused(stub: ImageSegmentationStub) -> None:
    file = dicom(SQUARE, PixelSpacing=[0.5, 0.25])
    with pytest.raises(grpc.RpcError) as caught:
        segment(stub, "spots", SQUARE, to_segment(file, 0.5, 0.5))
    assert code_of(caught) is grpc.StatusCode.INVALID_ARGUMENT
    found = violations(caught.value)
    assert found == {"images[1].pixel_spacing.column_mm": "is 0.5, but the file states 0.25 mm; leave it out"}


@pytest.mark.parametrize("value", [0, -1, float("nan"), float("inf"), 1000.1])
def test_implausible_spacing_is_refused(stub: ImageSegmentationStub, value: float) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        segment(stub, "spots", to_segment(SQUARE, value, 1))
    (field,) = violations(caught.value)
    assert field == "images[0].pixel_spacing.row_mm"


HOSTILE: dict[str, dict[str, Any]] = {
    "zero": {"PixelSpacing": [0, 0.5]},
    "negative": {"PixelSpacing": [-0.5, 0.5]},
    "huge": {"PixelSpacing": ["1e200", "1e200"]},
    "one number": {"PixelSpacing": [0.5]},
    "three numbers": {"PixelSpacing": [0.5, 0.5, 0.5]},
    "no scale": {"SequenceOfUltrasoundRegions": [region(PhysicalDeltaX=0.0)]},
    "not a number": {"SequenceOfUltrasoundRegions": [region(PhysicalDeltaX=float("nan"))]},
    "two scales": {"SequenceOfUltrasoundRegions": [region(), region(PhysicalDeltaX=0.5)]},
    "too many regions": {"SequenceOfUltrasoundRegions": [region()] * 100},
    "empty frames": {"SharedFunctionalGroupsSequence": [item(PixelMeasuresSequence=[item(PixelSpacing=[1])])]},
}


@pytest.mark.parametrize("name", HOSTILE)
def test_implausible_spacing_in_a_file_is_ignored_with_a_warning(stub: ImageSegmentationStub, name: str) -> None:
    (result,) = segment(stub, "spots", dicom(SQUARE, **HOSTILE[name]))
    assert {"ELEMENT_IGNORED", "SPACING_UNKNOWN"} <= kinds(result)
    assert not result.HasField("pixel_spacing")
    assert result.labels[0].area_px == 200


def test_regions_in_other_units_state_no_spacing(stub: ImageSegmentationStub) -> None:
    seconds = region(PhysicalUnitsXDirection=4)
    (result,) = segment(stub, "spots", dicom(SQUARE, SequenceOfUltrasoundRegions=[seconds]))
    assert "ELEMENT_IGNORED" not in kinds(result)
    assert "SPACING_UNKNOWN" in kinds(result)
