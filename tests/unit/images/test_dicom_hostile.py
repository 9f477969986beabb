"""Broken and malicious DICOM files are rejected with a reason that contains no patient data."""

import io
import logging
import struct
import subprocess
import sys
import tracemalloc
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom import dcmread, uid
from pydicom.data import get_testdata_file
from pydicom.dataset import Dataset

from medserve_images import ImageLimits, ImageReader, ImageRefused, Target
from samples.dicom_codestreams import GRAY as GRAY_PIXELS
from samples.dicom_codestreams import HTJ2K_GRAY
from samples.dicom_files import PATIENT, dicom, item, raw_dicom

LIMITS = ImageLimits(max_pixels=1_000_000)
GRAY = Target(
    height=28,
    width=28,
    color="gray",
    crop="center",
    resampling="bicubic",
)
PIXELS = np.random.default_rng(3).integers(0, 4096, (40, 30)).astype(np.uint16)
RLE_HEADER = struct.pack("<16L", 1, 64, *[0] * 14)
PREAMBLE = bytes(128) + b"DICM"


def read(data: bytes) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    return ImageReader(GRAY, LIMITS).read(data)[0]


def changed(change: Callable[[Dataset], None], **elements: object) -> bytes:
    """A valid file with modifications."""
    dataset = dcmread(io.BytesIO(dicom(PIXELS, BitsStored=12, **elements)))  # type: ignore[arg-type]  # no options
    change(dataset)
    file = io.BytesIO()
    dataset.save_as(file)
    return file.getvalue()


def with_value(keyword: str, vr: str, value: object) -> bytes:
    return changed(lambda dataset: dataset.add_new(keyword, vr, value))


def without(keyword: str) -> bytes:
    return changed(lambda dataset: dataset.__delattr__(keyword))


def jpeg(rows: int, columns: int) -> bytes:
    """A lossless codestream that declares a size and contains almost no data."""
    frame = struct.pack(">HBHHB", 11, 16, rows, columns, 1) + b"\x01\x11\x00"
    return b"\xff\xd8\xff\xc3" + frame + b"\xff\xda\x00\x08\x01\x01\x00\x01\x00\x00" + bytes(100)


def element(tag: int, vr: bytes, length: int, value: bytes = b"") -> bytes:
    """A data element of explicit VR whose length may be wrong."""
    head = struct.pack("<HH2s", tag >> 16, tag & 0xFFFF, vr)
    return (
        head
        + (struct.pack("<HL", 0, length) if vr in {b"SQ", b"OB", b"OW", b"UN"} else struct.pack("<H", length))
        + value
    )


def made_of(elements: bytes) -> bytes:
    syntax = b"1.2.840.10008.1.2.1\0"
    return PREAMBLE + element(0x00020010, b"UI", len(syntax), syntax) + elements


def shipped(name: str) -> bytes:
    path = get_testdata_file(name, download=False)
    assert isinstance(path, str)
    with open(path, "rb") as file:  # noqa: PTH123 - pydicom gives a text
        return file.read()


ENDLESS = 0xFFFFFFFF
ITEM = b"\xfe\xff\x00\xe0"
FRAGMENT = ITEM + b"\2\0\0\0" + b"12"
BROKEN: dict[str, tuple[bytes, str]] = {
    "nothing after the prefix": (PREAMBLE, "its elements cannot be read"),
    "no pixels": (without("PixelData"), "without Pixel Data"),
    "no rows": (without("Rows"), "without a valid Rows"),
    "no rows at all": (with_value("Rows", "US", 0), "Rows is 0, expected 1 to 65535"),
    "rows that are a name": (
        with_value("Rows", "PN", PATIENT[0]),
        "whose Rows has an unexpected value representation, expected US, SS or OW",
    ),
    "an unknown VR": (
        dicom(PIXELS).replace(b"\x28\x00\x10\x00US", b"\x28\x00\x10\x00QQ"),
        "whose Rows has an unexpected",
    ),
    "32 bits": (with_value("BitsAllocated", "US", 32), "BitsAllocated is 32, expected 8 or 16"),
    "more bits than there are": (with_value("BitsStored", "US", 17), "BitsStored is 17, expected 1 to 16"),
    "a high bit too low": (with_value("HighBit", "US", 3), "HighBit is 3, expected 11 to 15"),
    "four samples": (with_value("SamplesPerPixel", "US", 4), "SamplesPerPixel is 4, expected 1 or 3"),
    "colors without a name": (
        with_value("PhotometricInterpretation", "CS", "ODD"),
        "not defined by the standard, expected MONOCHROME1,",
    ),
    "a billion frames": (with_value("NumberOfFrames", "IS", 10**9), "NumberOfFrames is 1000000000, expected 1 to"),
    "more frames than pixels": (
        with_value("NumberOfFrames", "IS", 50_000),
        "PixelData has 2400 bytes, expected 120000000",
    ),
    "too many pixels": (
        changed(lambda dataset: dataset.update(item(Rows=65535, Columns=65535))),
        "= 4294.8 megapixels",
    ),
    "too few pixels": (
        changed(lambda dataset: dataset.update(item(Rows=400))),
        "PixelData has 2400 bytes, expected 24000",
    ),
    "a truncated file": (dicom(PIXELS)[:-500], "PixelData has 1900 bytes, expected 2400"),
    "a length beyond the file": (
        made_of(element(0x00100010, b"UN", 2**31, PATIENT[0].encode())),
        "without Pixel Data",
    ),
    "a window without width": (
        dicom(PIXELS, WindowCenter="10", WindowWidth="0"),
        "whose WindowWidth is 0, expected at least 1 for the VOILUTFunction LINEAR",
    ),
    "an infinite slope": (
        dicom(PIXELS, RescaleSlope="1e300", RescaleIntercept="0"),
        "RescaleSlope is 1e+300, expected less than",
    ),
    "a table shorter than it says": (
        dicom(PIXELS, VOILUTSequence=[item(LUTDescriptor=[4096, 0, 8], LUTData=b"12")]),
        "whose LUTData has 2 bytes, expected 8192 or 4096",
    ),
    "JPEG-LS": (shipped("MR_small_jpeg_ls_lossless.dcm"), "in JPEG-LS Lossless Image Compression, expected one of"),
    "JPEG of 12 bits": (
        shipped("JPGExtended.dcm"),
        "is of process 0xC1 and 12 bits, expected sequential JPEG (0xC0 or 0xC1) of 8 bits",
    ),
    "groups of fewer frames": (
        dicom(np.stack([PIXELS] * 2), frames=2, PerFrameFunctionalGroupsSequence=[item()]),
        "whose PerFrameFunctionalGroupsSequence has 1 items, expected at least 2",
    ),
    "a syntax that is a name": (
        PREAMBLE + element(0x00020010, b"UI", 16, PATIENT[0].encode()),
        "in a transfer syntax that is not in the standard",
    ),
    "sequences in sequences": (
        made_of((element(0x00081140, b"SQ", ENDLESS) + ITEM + b"\xff\xff\xff\xff") * 100_000),
        "its elements cannot be read (",
    ),
    "a million elements": (made_of(element(0x00080020, b"DA", 0) * 1_000_000), "too many elements"),
    "a million items": (
        made_of(element(0x00081140, b"SQ", ENDLESS) + (ITEM + bytes(4)) * 1_000_000),
        "too many elements",
    ),
    "a window of a million numbers": (
        dicom(PIXELS, syntax=uid.ImplicitVRLittleEndian, WindowWidth="8").replace(
            struct.pack("<HHL", 0x28, 0x1051, 2) + b"8 ",
            struct.pack("<HHL", 0x28, 0x1051, 2_000_000) + b"1\\" * 1_000_000,
        ),
        "too many elements",
    ),
    "a sequence of many frames' groups": (
        dicom(PIXELS).replace(
            element(0x7FE00010, b"OW", PIXELS.nbytes),
            element(0x52009230, b"SQ", 4_000_000)
            + (ITEM + bytes(4)) * 500_000
            + element(0x7FE00010, b"OW", PIXELS.nbytes),
        ),
        "too many elements",
    ),
    "a million fragments": (
        dicom(PIXELS, syntax=uid.RLELossless, encoded=[b"12"]).replace(FRAGMENT, FRAGMENT * 1_000_000),
        "too many elements or fragments",
    ),
    "an RLE frame that expands": (
        dicom(PIXELS.astype(np.uint8), syntax=uid.RLELossless, encoded=[RLE_HEADER + b"\x81\0" * 1_000_000]),
        "RLE frame has 2000064 bytes, expected at most",
    ),
    "a table of offsets for other frames": (
        changed(lambda dataset: dataset.compress(uid.RLELossless, encoding_plugin="pydicom")).replace(
            ITEM + struct.pack("<L", 4), ITEM + struct.pack("<L", 8)
        ),
        "offset table has 8 bytes, expected 4 for 1 frames",
    ),
    "a codestream of another size": (
        dicom(PIXELS, syntax=uid.JPEGLosslessSV1, encoded=[jpeg(65535, 65535)]),
        "of 30 x 40 pixels whose compressed frame is 65535 x 65535",
    ),
    "a codestream without end": (
        dicom(PIXELS, syntax=uid.JPEGLosslessSV1, encoded=[jpeg(40, 30)]),
        "cannot be decoded",
    ),
    "another codec's bytes": (
        dicom(PIXELS, syntax=uid.JPEG2000Lossless, encoded=[jpeg(40, 30)]),
        "not a JPEG 2000 codestream",
    ),
}


FRAMES = {"groups of fewer frames": 1}


@pytest.mark.parametrize("name", BROKEN)
def test_an_invalid_file_is_rejected_with_a_reason_and_without_patient_data(
    name: str, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    data, reason = BROKEN[name]
    with caplog.at_level(logging.DEBUG), pytest.raises(ImageRefused) as caught:
        ImageReader(GRAY, LIMITS).read(data, FRAMES.get(name, 0))
    assert caught.value.part == "encoded"
    assert reason in caught.value.reason
    said = repr(caught.value) + repr(caught.value.__cause__) + caplog.text + "".join(capfd.readouterr())
    assert not [word for word in PATIENT if word in said]
    assert caplog.text == ""


def test_a_deflated_file_is_rejected_before_it_is_inflated() -> None:
    data = PREAMBLE + element(0x00020010, b"UI", 22, b"1.2.840.10008.1.2.1.99")
    with pytest.raises(ImageRefused, match="in Deflated Explicit VR Little Endian, expected one of Implicit VR"):
        read(data + bytes(1000))


def test_a_dicom_file_without_preamble_is_not_recognized() -> None:
    with pytest.raises(ImageRefused, match="is not a PNG, JPEG, TIFF or DICOM file"):
        read(dicom(PIXELS)[132:])


def test_a_frame_of_another_format_is_rejected() -> None:
    with pytest.raises(ImageRefused) as caught:
        ImageReader(GRAY, LIMITS).read(b"\x89PNG", 3)
    assert caught.value.part == "frame"


def test_pixels_declared_as_text_are_not_parsed() -> None:
    data = dicom(PIXELS)
    called = data.replace(b"\xe0\x7f\x10\0OW", b"\xe0\x7f\x10\0UT")
    assert called != data
    np.testing.assert_array_equal(read(called), read(data))


@pytest.mark.process
def test_without_pydicom_the_extra_is_named() -> None:
    program = """
import sys
sys.modules["pydicom"] = None
from medserve_images import ImageLimits, ImageReader, Target
try:
    ImageReader(Target(2, 2, "gray", "none", "bilinear"), ImageLimits()).read(bytes(128) + b"DICM")
except Exception as error:
    print(type(error).__name__, error)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("ImageRefused is a DICOM file, which requires the extra dicom")


def test_a_small_file_that_declares_large_data_uses_little_memory() -> None:
    claims = [
        dicom(PIXELS, syntax=uid.RLELossless, encoded=[RLE_HEADER + b"\x81\0" * 1_000_000]),
        dicom(PIXELS, syntax=uid.JPEGLosslessSV1, encoded=[jpeg(65535, 65535)]),
        with_value("NumberOfFrames", "IS", 100_000),
    ]
    tracemalloc.start()
    for data in claims:
        with pytest.raises(ImageRefused):
            read(data)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 64 * 1024 * 1024


SEGMENTS = ("OW", struct.pack("<17H", 0, 2, 9, 65535, 1, 100, 0, 2, 1, 8, 0, 0, 2, 9, 9, 1, 52) + b"\1\2")
PALETTE: dict[str, object] = {"PhotometricInterpretation": "PALETTE COLOR"}
for color in ("Red", "Green", "Blue"):
    PALETTE[f"{color}PaletteColorLookupTableDescriptor"] = [256, 0, 16]
    PALETTE[f"Segmented{color}PaletteColorLookupTableData"] = SEGMENTS
SAMPLES = [
    dicom(PIXELS, BitsStored=12, WindowCenter="100", WindowWidth="50", RescaleSlope="2", RescaleIntercept="-4"),
    dicom(PIXELS.astype(np.uint8), VOILUTSequence=[item(LUTDescriptor=[2, 0, 8], LUTData=b"\1\0\2\0")]),
    *map(
        shipped,
        (
            "MR_small_RLE.dcm",
            "MR_small_jp2klossless.dcm",
            "SC_rgb_jpeg_gdcm.dcm",
            "SC_rgb_dcmtk_+eb+cy+n1.dcm",
            "MR_small_implicit.dcm",
            "JPEG2000.dcm",
        ),
    ),
    raw_dicom(GRAY_PIXELS, uid.HTJ2KLossless, PixelData=("OB", [HTJ2K_GRAY])),
    raw_dicom(np.arange(256, dtype=np.uint8)[None, :], uid.ExplicitVRLittleEndian, **PALETTE),
]


@settings(max_examples=400, deadline=None)
@given(
    sample=st.sampled_from(SAMPLES),
    keep=st.floats(0, 1) | st.just(1.0),
    places=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), max_size=12),
)
def test_a_damaged_file_is_only_ever_read_or_rejected(
    sample: bytes, keep: float, places: list[tuple[float, int]]
) -> None:
    data = bytearray(sample)
    for place, value in places:
        data[132 + int(place * (len(data) - 132))] = value
    try:
        pixels = read(bytes(data[: 132 + int(keep * (len(data) - 132))]))
    except ImageRefused:
        return
    assert pixels.shape == (28, 28, 1)
