"""Exact pixel values of DICOM files, computed here from the standard and not by the code under test."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from pydicom import uid
from pydicom.dataset import Dataset

from medserve_images import ImageLimits, ImageReader, ImageRefused, ImageWarning, Target
from samples.dicom_files import dicom, item, packed, words

RANDOM = np.random.default_rng(1)
LIMITS = ImageLimits(max_pixels=1_000_000)


def read(data: bytes, shape: tuple[int, ...], frame: int = 0) -> tuple[NDArray[np.uint8], list[ImageWarning]]:
    """Reads a file for a model whose input has exactly the file's shape."""
    target = Target(
        height=shape[0],
        width=shape[1],
        color="rgb" if len(shape) == 3 else "gray",
        crop="none",
        resampling="bilinear",
    )
    pixels, warnings = ImageReader(target, LIMITS).read(data, frame)
    return pixels.reshape(shape), warnings


def shown(
    pixels: NDArray[np.generic],
    **elements: Any,  # noqa: ANN401 - of as many types as DICOM has
) -> NDArray[np.uint8]:
    return read(dicom(pixels, **elements), pixels.shape)[0]


def linear(value: float, center: float, width: float) -> int:
    """The pseudocode of PS3.3 C.11.2.1.2.1, for 0 to 255."""
    if value <= center - 0.5 - (width - 1) / 2:
        return 0
    if value > center - 0.5 + (width - 1) / 2:
        return 255
    return round(((value - (center - 0.5)) / (width - 1) + 0.5) * 255)


def gray8(rows: int = 5, columns: int = 7) -> NDArray[np.uint8]:
    return RANDOM.integers(0, 256, (rows, columns), dtype=np.uint8)


def test_8_bits_without_a_window_are_used_unchanged() -> None:
    pixels = gray8()
    found, warnings = read(dicom(pixels), pixels.shape)
    np.testing.assert_array_equal(found, pixels)
    assert warnings == []


def test_monochrome1_is_inverted() -> None:
    pixels = gray8()
    np.testing.assert_array_equal(shown(pixels, PhotometricInterpretation="MONOCHROME1"), 255 - pixels)


@pytest.mark.parametrize("bits", [9, 10, 12, 15, 16])
@pytest.mark.parametrize("kind", ["u", "i"])
def test_deeper_gray_without_a_window_is_stretched_from_minimum_to_maximum(bits: int, kind: str) -> None:
    low = -(1 << (bits - 1)) if kind == "i" else 0
    pixels = RANDOM.integers(low, low + (1 << bits), (6, 4)).astype(f"{kind}2")
    found, warnings = read(dicom(pixels, BitsStored=bits), pixels.shape)
    least, greatest = int(pixels.min()), int(pixels.max())
    expected = [[round((int(value) - least) / (greatest - least) * 255) for value in row] for row in pixels]
    np.testing.assert_array_equal(found, expected)
    assert [warning.kind for warning in warnings] == ["DEPTH_REDUCED"]
    assert warnings[0].message == (
        f"converted from {bits} to 8 bits by its minimum and maximum ({least:g} and {greatest:g})"
    )


def test_padding_is_excluded_from_the_minimum() -> None:
    pixels = np.array([[-2000, 0, 50, 100]], np.int16)
    np.testing.assert_array_equal(shown(pixels, PixelPaddingValue=-2000), [[0, 0, 128, 255]])
    np.testing.assert_array_equal(shown(pixels, PixelPaddingValue=-2000, PixelPaddingRangeLimit=0), [[0, 0, 0, 255]])


def test_a_constant_frame_is_black() -> None:
    np.testing.assert_array_equal(shown(np.full((2, 3), 700, np.uint16)), np.zeros((2, 3)))


@pytest.mark.parametrize("syntax", [uid.ExplicitVRLittleEndian, uid.ImplicitVRLittleEndian, uid.ExplicitVRBigEndian])
def test_a_ct_is_displayed_in_hounsfield_units_with_its_first_window(syntax: uid.UID) -> None:
    pixels = RANDOM.integers(0, 4096, (8, 8)).astype(np.int16)
    data = dicom(
        pixels,
        syntax=syntax,
        BitsStored=16,
        RescaleSlope="1",
        RescaleIntercept="-1024",
        WindowCenter=["40", "500"],
        WindowWidth=["400", "2000"],
    )
    found, warnings = read(data, pixels.shape)
    np.testing.assert_array_equal(found, [[linear(int(v) - 1024, 40, 400) for v in row] for row in pixels])
    assert [warning.message for warning in warnings] == [
        "converted from 16 to 8 bits by its first window (center 40, width 400)"
    ]


def test_a_pet_frame_uses_its_own_rescale_slope() -> None:
    pixels = np.array([[0, 1000, 2000, 30000]], np.uint16)
    found = shown(pixels, RescaleSlope="0.25", RescaleIntercept="0", WindowCenter="250", WindowWidth="500")
    np.testing.assert_array_equal(found, [[linear(v / 4, 250, 500) for v in pixels[0]]])


@pytest.mark.parametrize(
    ("function", "formula"),
    [
        ("LINEAR_EXACT", lambda v: min(max((v - 100) / 50 + 0.5, 0), 1)),
        ("SIGMOID", lambda v: 1 / (1 + math.exp(-4 * (v - 100) / 50))),
    ],
)
def test_other_window_functions(function: str, formula: Callable[[int], float]) -> None:
    pixels = np.arange(0, 256, dtype=np.uint8).reshape(16, 16)
    found, warnings = read(dicom(pixels, WindowCenter="100", WindowWidth="50", VOILUTFunction=function), pixels.shape)
    np.testing.assert_array_equal(found, [[round(formula(int(v)) * 255) for v in row] for row in pixels])
    assert warnings[0].message == "converted to 8 bits by its first window (center 100, width 50)"


def test_a_window_of_width_1_is_a_threshold() -> None:
    np.testing.assert_array_equal(
        shown(np.array([[9, 10, 11]], np.uint8), WindowCenter="10.5", WindowWidth="1"), [[0, 0, 255]]
    )


@pytest.mark.parametrize("syntax", [uid.ExplicitVRLittleEndian, uid.ImplicitVRLittleEndian, uid.ExplicitVRBigEndian])
def test_modality_and_voi_luts_are_applied(syntax: uid.UID) -> None:
    modality = item(LUTDescriptor=[4, 10, 16], ModalityLUTType="US")
    modality.add_new("LUTData", "US", [0, 100, 500, 600])
    shades = np.array([v * 255 // 600 for v in range(601)], "<u2" if syntax.is_little_endian else ">u2")
    interest = item(LUTDescriptor=[601, 0, 8], LUTData=shades.tobytes())  # with more than 256 entries
    pixels = np.array([[0, 10, 11, 12, 13, 99]], np.uint8)
    data = dicom(pixels, syntax=syntax, ModalityLUTSequence=[modality], VOILUTSequence=[interest, interest])
    found, warnings = read(data, pixels.shape)
    np.testing.assert_array_equal(found, [[v * 255 // 600 for v in (0, 0, 100, 500, 600, 600)]])
    assert warnings[0].message == "converted to 8 bits by its first VOI lookup table"


def test_the_high_bit_may_be_anywhere_and_other_bits_are_ignored() -> None:
    values = RANDOM.integers(0, 4096, (3, 5)).astype(np.uint16)
    moved = values << 2 | RANDOM.integers(0, 4, values.shape).astype(np.uint16) | np.uint16(0x8000)
    window = {"WindowCenter": "2048", "WindowWidth": "4096"}
    plain = shown(values, BitsStored=12, **window)
    np.testing.assert_array_equal(shown(moved, BitsStored=12, HighBit=13, **window), plain)
    np.testing.assert_array_equal(plain, [[linear(int(v), 2048, 4096) for v in row] for row in values])


def test_only_the_selected_frame_is_read() -> None:
    pixels = RANDOM.integers(0, 256, (5, 3, 3), dtype=np.uint8)  # frames of an odd size
    data = dicom(pixels, frames=5)
    for frame in range(5):
        np.testing.assert_array_equal(read(data, (3, 3), frame)[0], pixels[frame])
    with pytest.raises(ImageRefused) as caught:
        read(data, (3, 3), 5)
    assert (caught.value.part, caught.value.reason) == ("frame", "is 5, expected 0 to 4")


def test_each_frame_of_an_enhanced_file_has_its_own_slope_and_window() -> None:
    pixels = np.stack([np.array([[0, 100, 200]], np.uint16)] * 2)

    def group(slope: str, center: str) -> Dataset:
        return item(
            PixelValueTransformationSequence=[item(RescaleSlope=slope, RescaleIntercept="10", RescaleType="US")],
            FrameVOILUTSequence=[item(WindowCenter=center, WindowWidth="300")],
        )

    data = dicom(pixels, frames=2, PerFrameFunctionalGroupsSequence=[group("1", "100"), group("2", "200")])
    for frame, (slope, center) in enumerate([(1, 100), (2, 200)]):
        expected = [[linear(v * slope + 10, center, 300) for v in (0, 100, 200)]]
        np.testing.assert_array_equal(read(data, (1, 3), frame)[0], expected)
    shared = dicom(pixels, frames=2, SharedFunctionalGroupsSequence=[group("2", "200")])
    np.testing.assert_array_equal(read(shared, (1, 3), 1)[0], expected)


@pytest.mark.parametrize("planar", [0, 1])
@pytest.mark.parametrize("bits", [8, 12, 16])
def test_rgb_in_either_planar_configuration(planar: int, bits: int) -> None:
    pixels = RANDOM.integers(0, 1 << bits, (4, 6, 3)).astype(np.uint8 if bits == 8 else np.uint16)
    stored = pixels if planar == 0 else np.ascontiguousarray(pixels.transpose(2, 0, 1))
    data = dicom(pixels, BitsStored=bits, PlanarConfiguration=planar, PixelData=stored.tobytes())
    found, warnings = read(data, pixels.shape)
    np.testing.assert_array_equal(found, pixels.astype(int) // 2 ** (bits - 8))
    assert [warning.message for warning in warnings] == [f"reduced from {bits} to 8 bits"] * (bits > 8)


def test_ybr_full_is_converted() -> None:
    ybr = np.array([[[76, 85, 255], [150, 44, 21], [29, 255, 107], [128, 128, 128]]], np.uint8)
    found = shown(ybr, PhotometricInterpretation="YBR_FULL")
    expected = [[[254, 0, 0], [0, 255, 1], [0, 0, 254], [128, 128, 128]]]  # red, green, blue, gray (PS3.3 C.7.6.3.1.2)
    np.testing.assert_allclose(found, expected, atol=1)


def test_ybr_full_422_shares_its_chroma_between_two_pixels() -> None:
    full = np.array([[[76, 85, 255], [90, 85, 255], [29, 255, 107], [40, 255, 107]]], np.uint8)
    halved = bytes([76, 90, 85, 255, 29, 40, 255, 107])
    data = dicom(full, PhotometricInterpretation="YBR_FULL_422", PixelData=halved)
    np.testing.assert_array_equal(read(data, full.shape)[0], shown(full, PhotometricInterpretation="YBR_FULL"))


@pytest.mark.parametrize("syntax", [uid.ExplicitVRLittleEndian, uid.ImplicitVRLittleEndian, uid.ExplicitVRBigEndian])
@pytest.mark.parametrize("depth", [8, 16])
def test_a_palette_is_applied(syntax: uid.UID, depth: int) -> None:
    colors = RANDOM.integers(0, 1 << depth, (3, 300))
    write = packed if depth == 8 else words
    names = ("Red", "Green", "Blue")
    palette: dict[str, Any] = {f"{name}PaletteColorLookupTableDescriptor": [300, 5, depth] for name in names} | {
        f"{name}PaletteColorLookupTableData": write(row, syntax) for name, row in zip(names, colors, strict=True)
    }
    indices = np.array([[0, 5, 6], [260, 304, 999]], np.uint16)
    data = dicom(indices, syntax=syntax, PhotometricInterpretation="PALETTE COLOR", **palette)
    found, warnings = read(data, (2, 3, 3))
    expected = [[colors[:, place] * 255 // ((1 << depth) - 1) for place in row] for row in ([0, 0, 1], [255, 299, 299])]
    np.testing.assert_array_equal(found, expected)
    assert [warning.message for warning in warnings] == ["reduced from 16 to 8 bits"] * (depth == 16)


def test_color_is_converted_to_gray_for_a_gray_model_with_a_warning() -> None:
    pixels = np.full((4, 4, 3), (255, 0, 0), np.uint8)
    found, warnings = read(dicom(pixels), (4, 4))
    np.testing.assert_array_equal(found, np.full((4, 4), 76))
    assert [warning.kind for warning in warnings] == ["COLOR_CONVERTED"]


@settings(max_examples=60, deadline=None)
@example(center=0.5, width=1.0, slope="1", inverted=False)
@given(
    center=st.floats(-3000, 3000),
    width=st.floats(1, 5000),
    slope=st.sampled_from(["1", "0.5", "-1", "3.25"]),
    inverted=st.booleans(),
)
def test_any_window_follows_the_standards_formula(center: float, width: float, slope: str, inverted: bool) -> None:
    pixels = np.arange(-2048, 2048, 7, dtype=np.int16)[None, :]
    texts = f"{center:.3f}", f"{width:.3f}"
    found = shown(
        pixels,
        WindowCenter=texts[0],
        WindowWidth=texts[1],
        RescaleSlope=slope,
        RescaleIntercept="-10",
        PhotometricInterpretation="MONOCHROME1" if inverted else "MONOCHROME2",
    )
    values = pixels[0] * float(slope) - 10
    low, high = float(texts[0]) - 0.5 - (float(texts[1]) - 1) / 2, float(texts[0]) - 0.5 + (float(texts[1]) - 1) / 2
    shade = found[0].astype(int) if not inverted else 255 - found[0].astype(int)
    assert (shade[values <= low] == 0).all()
    assert (shade[values > high] == 255).all()
    inside = (values > low) & (values <= high)
    exact = [(v - (float(texts[0]) - 0.5)) / (float(texts[1]) - 1) * 255 + 127.5 for v in values[inside]]
    np.testing.assert_allclose(shade[inside], exact, atol=0.5001)
