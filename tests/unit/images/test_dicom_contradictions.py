"""DICOM files with contradictory or missing elements are rejected with the element's name, or read with a warning."""

import numpy as np
import pytest
from numpy.typing import NDArray
from pydicom import uid

from medserve_images import ImageLimits, ImageReader, ImageRefused, ImageWarning, Target
from samples.dicom_files import PATIENT, raw_dicom, words

LITTLE = uid.ExplicitVRLittleEndian
PIXELS = np.arange(256, dtype=np.uint8).reshape(16, 16)
TABLE = {"LUTDescriptor": ("US", [256, 0, 8]), "LUTData": ("OW", words(np.arange(256)[::-1], LITTLE))}
MODALITY = TABLE | {"ModalityLUTType": ("LO", b"US")}


def read(data: bytes, shape: tuple[int, ...] = PIXELS.shape) -> tuple[NDArray[np.uint8], list[ImageWarning]]:
    target = Target(
        height=shape[0],
        width=shape[1],
        color="rgb" if len(shape) == 3 else "gray",
        crop="none",
        resampling="bilinear",
    )
    pixels, warnings = ImageReader(target, ImageLimits()).read(data)
    return pixels.reshape(shape), warnings


WINDOW: dict[str, object] = {"WindowCenter": "100", "WindowWidth": "50"}
COLORS = "RGB, YBR_FULL, YBR_FULL_422 for SamplesPerPixel 3 and {syntax}"
GRAYS = "MONOCHROME1, MONOCHROME2, PALETTE COLOR for SamplesPerPixel 1 and {syntax}"
REFUSED: dict[str, tuple[dict[str, object], str]] = {
    "a window of width 0": (
        WINDOW | {"WindowWidth": "0"},
        "whose WindowWidth is 0, expected at least 1 for the VOILUTFunction LINEAR",
    ),
    "a window narrower than a value": (
        WINDOW | {"WindowWidth": "0.5"},
        "whose WindowWidth is 0.5, expected at least 1 for the VOILUTFunction LINEAR",
    ),
    "a window of negative width": (
        WINDOW | {"WindowWidth": "-5\\10", "VOILUTFunction": "LINEAR"},
        "whose WindowWidth is -5, expected at least 1 for the VOILUTFunction LINEAR",
    ),
    "an exact window of width 0": (
        WINDOW | {"WindowWidth": "0", "VOILUTFunction": "LINEAR_EXACT"},
        "whose WindowWidth is 0, expected more than 0 for the VOILUTFunction LINEAR_EXACT",
    ),
    "a sigmoid window of negative width": (
        WINDOW | {"WindowWidth": "-1", "VOILUTFunction": "SIGMOID"},
        "whose WindowWidth is -1, expected more than 0 for the VOILUTFunction SIGMOID",
    ),
    "an unknown function": (
        WINDOW | {"VOILUTFunction": "CUBIC"},
        "whose VOILUTFunction is unknown, expected LINEAR, LINEAR_EXACT, SIGMOID or none",
    ),
    "a decimal comma": (
        WINDOW | {"WindowCenter": "100,5"},
        'whose WindowCenter is "100,5", expected a decimal number',
    ),
    "a window in letters": (
        WINDOW | {"WindowCenter": PATIENT[0]},
        "whose WindowCenter is text, expected a decimal number",
    ),
    "a window that is not a number": (
        WINDOW | {"WindowCenter": "nan"},
        "whose WindowCenter is text, expected a decimal number",
    ),
    "no first window": (
        {"WindowCenter": "\\100", "WindowWidth": "\\50"},
        "whose WindowCenter is empty, expected a decimal number",
    ),
    "a window out of all bounds": (
        WINDOW | {"WindowCenter": "1e40"},
        "whose WindowCenter is 1e+40, expected less than 1e+30",
    ),
    "a center alone": ({"WindowCenter": "100"}, "whose WindowCenter is 100, without WindowWidth"),
    "a width alone": ({"WindowWidth": "50"}, "whose WindowWidth is 50, without WindowCenter"),
    "a window in binary": (
        WINDOW | {"WindowCenter": ("US", 100)},
        "whose WindowCenter is not an ASCII text",
    ),
    "a slope of 0": (
        {"RescaleSlope": "0", "RescaleIntercept": "5"},
        "whose RescaleSlope is 0, expected a nonzero number",
    ),
    "an intercept alone": ({"RescaleIntercept": "-1024"}, "whose RescaleIntercept is -1024, without RescaleSlope"),
    "a slope alone": ({"RescaleSlope": "0.5"}, "whose RescaleSlope is 0.5, without RescaleIntercept"),
    "gray by three samples": (
        {"SamplesPerPixel": 3},
        "whose PhotometricInterpretation is MONOCHROME2, expected " + COLORS,
    ),
    "colors by one sample": (
        {"PhotometricInterpretation": "RGB"},
        "whose PhotometricInterpretation is RGB, expected " + GRAYS,
    ),
    "colors of another codec": (
        {"SamplesPerPixel": 3, "PhotometricInterpretation": "YBR_RCT"},
        "whose PhotometricInterpretation is YBR_RCT, expected " + COLORS,
    ),
    "retired colors": (
        {"SamplesPerPixel": 3, "PhotometricInterpretation": "HSV"},
        "whose PhotometricInterpretation is HSV, expected " + COLORS,
    ),
    "no colors": (
        {"PhotometricInterpretation": None},
        "whose PhotometricInterpretation is missing, expected " + GRAYS,
    ),
    "halved colors in planes": (
        {"SamplesPerPixel": 3, "PhotometricInterpretation": "YBR_FULL_422", "PlanarConfiguration": 1},
        "whose PlanarConfiguration is 1, expected 0 for uncompressed YBR_FULL_422",
    ),
    "halved colors of odd width": (
        {"SamplesPerPixel": 3, "PhotometricInterpretation": "YBR_FULL_422", "Columns": 15},
        "whose Columns is 15, expected an even number for YBR_FULL_422",
    ),
    "signed colors": (
        {"SamplesPerPixel": 3, "PhotometricInterpretation": "RGB", "PixelRepresentation": 1},
        "whose PixelRepresentation is 1, expected 0",
    ),
    "deep YBR": (
        {"SamplesPerPixel": 3, "PhotometricInterpretation": "YBR_FULL", "BitsAllocated": 16, "BitsStored": 16},
        "whose BitsStored is 16, expected 8",
    ),
    "1 bit": ({"BitsAllocated": 1, "BitsStored": 1}, "whose BitsAllocated is 1, expected 8 or 16"),
    "12 bits allocated": ({"BitsAllocated": 12, "BitsStored": 12}, "whose BitsAllocated is 12, expected 8 or 16"),
    "32 bits": ({"BitsAllocated": 32, "BitsStored": 32}, "whose BitsAllocated is 32, expected 8 or 16"),
    "no frames": ({"NumberOfFrames": "0"}, "whose NumberOfFrames is 0, expected 1 to 100000"),
    "half a frame": ({"NumberOfFrames": "1.5"}, "whose NumberOfFrames is 1.5, expected 1 to 100000"),
    "float pixels": (
        {"PixelData": None, "FloatPixelData": ("OB", bytes(16 * 16 * 4))},
        "whose pixels are in FloatPixelData, expected whole numbers in PixelData",
    ),
    "double pixels": (
        {"PixelData": None, "DoubleFloatPixelData": ("OB", bytes(16 * 16 * 8))},
        "whose pixels are in DoubleFloatPixelData, expected whole numbers in PixelData",
    ),
    "a table that is not a sequence": ({"VOILUTSequence": ("OB", bytes(8))}, "whose VOILUTSequence is not a sequence"),
    "a palette without data": (
        {"PhotometricInterpretation": "PALETTE COLOR", "RedPaletteColorLookupTableDescriptor": [256, 0, 8]},
        "without RedPaletteColorLookupTableData",
    ),
    "a palette without description": (
        {"PhotometricInterpretation": "PALETTE COLOR"},
        "whose RedPaletteColorLookupTableDescriptor has 0 values, expected 3",
    ),
}


# Without value representations in the file, the values differ.
EXPLICIT = {"a window in binary", "a table that is not a sequence"}


@pytest.mark.parametrize(
    ("syntax", "name"),
    [(LITTLE, name) for name in REFUSED]
    + [(uid.ImplicitVRLittleEndian, name) for name in sorted(REFUSED.keys() - EXPLICIT)],
)
def test_a_rejected_element_is_named(syntax: uid.UID, name: str) -> None:
    elements, reason = REFUSED[name]
    with pytest.raises(ImageRefused) as caught:
        read(raw_dicom(PIXELS, syntax, **elements))
    assert caught.value.reason == f"is a DICOM file {reason.replace('{syntax}', syntax.name)}"


@pytest.mark.parametrize("vr", ["OB", "UN"])
def test_16_bit_pixels_of_unknown_byte_order_are_rejected(vr: str) -> None:
    syntax = uid.ExplicitVRBigEndian
    pixels = PIXELS.astype(np.uint16)
    with pytest.raises(ImageRefused, match=f"in big endian whose 16-bit PixelData has the value representation {vr}"):
        read(raw_dicom(pixels, syntax, PixelData=(vr, words(pixels, syntax))))


@pytest.mark.parametrize("elements", [{"RescaleSlope": "1"}, {"RescaleIntercept": "0"}, {"WindowCenter": ""}])
def test_an_incomplete_pair_without_effect_is_ignored(elements: dict[str, object]) -> None:
    found, warnings = read(raw_dicom(PIXELS, LITTLE, **elements))
    np.testing.assert_array_equal(found, PIXELS)
    assert warnings == []


@pytest.mark.parametrize(
    ("text", "center"),
    [(" 100 ", 100), ("+1.0E2", 100), ("100.00000000000000000001", 100), ("100\\7", 100), (".5", 0.5)],
)
def test_decimal_strings(text: str, center: float) -> None:
    found, warnings = read(raw_dicom(PIXELS, LITTLE, WindowCenter=text, WindowWidth="50"))
    expected = np.clip((PIXELS.astype(float) - (center - 0.5)) / 49 + 0.5, 0, 1) * 255
    np.testing.assert_allclose(found, expected, atol=0.51)
    assert warnings[0].message == f"converted to 8 bits by its first window (center {center:g}, width 50)"


def test_a_window_is_ignored_if_there_is_a_voi_lut() -> None:
    found, _ = read(raw_dicom(PIXELS, LITTLE, WindowCenter="100", WindowWidth="0", VOILUTSequence=[TABLE]))
    np.testing.assert_array_equal(found, 255 - PIXELS)


SHAPES = [
    ("MONOCHROME2", "IDENTITY", False, None),
    ("MONOCHROME1", "INVERSE", True, None),
    ("MONOCHROME2", "INVERSE", True, "displayed with its PresentationLUTShape INVERSE, which contradicts MONOCHROME2"),
    (
        "MONOCHROME1",
        "IDENTITY",
        False,
        "displayed with its PresentationLUTShape IDENTITY, which contradicts MONOCHROME1",
    ),
    ("MONOCHROME1", "LIN OD", True, "its PresentationLUTShape is neither IDENTITY nor INVERSE, and is ignored"),
    ("MONOCHROME2", "LIN OD", False, "its PresentationLUTShape is neither IDENTITY nor INVERSE, and is ignored"),
]


@pytest.mark.parametrize(("photometric", "shape", "inverted", "message"), SHAPES)
@pytest.mark.parametrize("syntax", [uid.ImplicitVRLittleEndian, LITTLE, uid.ExplicitVRBigEndian])
def test_the_presentation_lut_shape_decides_the_polarity(
    syntax: uid.UID, photometric: str, shape: str, inverted: bool, message: str | None
) -> None:
    elements = {"PhotometricInterpretation": photometric, "PresentationLUTShape": shape}
    found, warnings = read(raw_dicom(PIXELS, syntax, **elements))
    np.testing.assert_array_equal(found, 255 - PIXELS if inverted else PIXELS)
    assert [(each.kind, each.message) for each in warnings] == ([("ELEMENT_IGNORED", message)] if message else [])


def test_a_presentation_lut_sequence_is_ignored_with_a_warning() -> None:
    found, warnings = read(raw_dicom(PIXELS, LITTLE, PresentationLUTSequence=[TABLE]))
    np.testing.assert_array_equal(found, PIXELS)
    assert [each.message for each in warnings] == ["its PresentationLUTSequence is ignored"]


def test_a_modality_lut_replaces_slope_and_intercept_with_a_warning() -> None:
    elements = {"ModalityLUTSequence": [MODALITY], "WindowCenter": "128", "WindowWidth": "256"}
    plain, warnings = read(raw_dicom(PIXELS, LITTLE, **elements))
    assert len(warnings) == 1
    found, warnings = read(raw_dicom(PIXELS, LITTLE, RescaleSlope="2", RescaleIntercept="0", **elements))
    np.testing.assert_array_equal(found, plain)
    assert warnings[0].message == "its Modality LUT is applied; its RescaleSlope and Intercept are ignored"


@pytest.mark.parametrize("vr", ["US", "SS", "UN", "OW"])
@pytest.mark.parametrize("syntax", [uid.ImplicitVRLittleEndian, LITTLE])
def test_padding_has_the_sign_of_the_pixels(vr: str, syntax: uid.UID) -> None:
    pixels = np.array([[-2000, 0, 50, 100]], np.int16)
    padding = {"PixelPaddingValue": (vr, words([-2000], syntax)), "PixelPaddingRangeLimit": (vr, words([-1], syntax))}
    found, _ = read(raw_dicom(pixels, syntax, **padding), pixels.shape)
    np.testing.assert_array_equal(found, [[0, 0, 128, 255]])


@pytest.mark.parametrize("bits", [8, 16])
def test_uncompressed_bytes_may_be_in_big_endian_words(bits: int) -> None:
    syntax = uid.ExplicitVRBigEndian
    frames = np.random.default_rng(9).integers(0, 256, (3, 3, 5), dtype=np.uint8)  # frames of an odd size
    stored = frames if bits == 8 else frames.astype(np.uint16) << 8
    data = np.frombuffer(frames.tobytes() + b"\0", "<u2") if bits == 8 else stored
    file = raw_dicom(
        stored[0],
        syntax,
        NumberOfFrames=3,
        PixelData=("OW", words(data, syntax)),
        WindowCenter=1 << bits - 1,
        WindowWidth=1 << bits,
    )
    reader = ImageReader(Target(height=3, width=5, color="gray", crop="none", resampling="bilinear"), ImageLimits())
    for index, frame in enumerate(frames):
        np.testing.assert_allclose(reader.read(file, index)[0][..., 0], frame, atol=1)
