"""JPEG and JPEG 2000 in DICOM files: colors, signs, truncated codestreams and JP2 wrappers."""

import io
import struct

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from pydicom import uid
from pydicom.data import get_testdata_file

from medserve_images import ImageLimits, ImageReader, ImageRefused, ImageWarning, Target
from samples.dicom_codestreams import COLOR, GRAY, HTJ2K_COLOR, HTJ2K_GRAY, HTJ2K_SIGNED, JPEG_2000_SIGNED, SIGNED
from samples.dicom_files import raw_dicom

Y, X = np.mgrid[0:16, 0:24]
COLORS = np.stack([Y * 15, X * 10, 255 - Y * 10], axis=-1).astype(np.uint8)
HIGH_THROUGHPUT = [uid.HTJ2KLossless, uid.HTJ2KLosslessRPCL, uid.HTJ2K]


def read(data: bytes, shape: tuple[int, ...]) -> tuple[NDArray[np.uint8], list[ImageWarning]]:
    target = Target(
        height=shape[0],
        width=shape[1],
        color="rgb" if len(shape) == 3 else "gray",
        crop="none",
        resampling="bilinear",
    )
    pixels, warnings = ImageReader(target, ImageLimits()).read(data)
    return pixels.reshape(shape), warnings


def compressed(pixels: NDArray[np.generic], syntax: uid.UID, frame: bytes, **elements: object) -> bytes:
    return raw_dicom(pixels, syntax, PixelData=("OB", [frame]), **elements)


def saved(pixels: NDArray[np.generic], kind: str, **options: object) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind, **options)
    return file.getvalue()


def without_application_markers(jpeg: bytes) -> bytes:
    kept, position = jpeg[:2], 2
    while jpeg[position + 1] != 0xDA:
        (length,) = struct.unpack_from(">H", jpeg, position + 2)
        if not 0xE0 <= jpeg[position + 1] <= 0xEF:
            kept += jpeg[position : position + 2 + length]
        position += 2 + length
    return kept + jpeg[position:]


def with_adobe(jpeg: bytes, transform: int) -> bytes:
    plain = without_application_markers(jpeg)
    return plain[:2] + b"\xff\xee\x00\x0eAdobe\x00\x64\0\0\0\0" + bytes([transform]) + plain[2:]


def with_identifiers(jpeg: bytes, identifiers: bytes) -> bytes:
    changed = bytearray(without_application_markers(jpeg))
    frame, scan = changed.index(b"\xff\xc0"), changed.index(b"\xff\xda")
    changed[frame + 10 : frame + 19 : 3] = identifiers
    changed[scan + 5 : scan + 11 : 2] = identifiers
    return bytes(changed)


YCC = saved(COLORS, "JPEG", quality=95, subsampling=0)
RGB = saved(COLORS, "JPEG", quality=95, subsampling=0, keep_rgb=True)
JPEGS = {
    "JFIF": (YCC, True),
    "Adobe, YCbCr": (with_adobe(YCC, 1), True),
    "Adobe, RGB": (with_adobe(RGB, 0), False),
    "components R, G, B": (with_identifiers(RGB, b"RGB"), False),
    "plain YCbCr": (without_application_markers(YCC), None),
    "plain RGB": (with_identifiers(RGB, b"\1\2\3"), None),
    "a fill byte": (YCC[:2] + b"\xff" + YCC[2:], True),
}


@pytest.mark.parametrize("photometric", ["RGB", "YBR_FULL", "YBR_FULL_422"])
@pytest.mark.parametrize("name", JPEGS)
def test_jpeg_colors_follow_the_codestream_or_else_the_file(name: str, photometric: str) -> None:
    frame, converted = JPEGS[name]
    if converted is None and (photometric == "RGB") != (name == "plain RGB"):
        frame = JPEGS["plain YCbCr" if name == "plain RGB" else "plain RGB"][0]
    file = compressed(COLORS, uid.JPEGBaseline8Bit, frame, PhotometricInterpretation=photometric)
    found, warnings = read(file, COLORS.shape)
    np.testing.assert_allclose(found, COLORS, atol=6)
    contradicts = converted is not None and converted == (photometric == "RGB")
    said = f"read as {'YCbCr' if converted else 'RGB'}, as declared by its JPEG codestream"
    assert [(each.kind, each.message.split(", which")[0]) for each in warnings] == [
        ("ELEMENT_IGNORED", said)
    ] * contradicts


def test_jpeg_extended_of_8_bits_is_read() -> None:
    gray = COLORS[..., 0]
    frame = saved(gray, "JPEG", quality=95).replace(b"\xff\xc0", b"\xff\xc1")
    np.testing.assert_allclose(read(compressed(gray, uid.JPEGExtended12Bit, frame), gray.shape)[0], gray, atol=6)


def test_jpeg_frames_that_are_not_sequential_or_have_other_components_are_rejected() -> None:
    gray = COLORS[..., 0]
    progressive = saved(gray, "JPEG", progressive=True)
    with pytest.raises(ImageRefused, match="of process 0xC2 and 8 bits, expected sequential JPEG"):
        read(compressed(gray, uid.JPEGBaseline8Bit, progressive), gray.shape)
    with pytest.raises(ImageRefused, match="whose SamplesPerPixel is 1, but its compressed frame has 3"):
        read(compressed(gray, uid.JPEGBaseline8Bit, YCC), gray.shape)
    many = saved(gray, "JPEG")[:-2] + b"\xff\xda\0\2" * 101 + b"\xff\xd9"
    with pytest.raises(ImageRefused, match="has 102 scans, expected at most 100"):
        read(compressed(gray, uid.JPEGBaseline8Bit, many), gray.shape)


@pytest.mark.parametrize("syntax", HIGH_THROUGHPUT)
def test_high_throughput_jpeg_2000(syntax: uid.UID) -> None:
    np.testing.assert_array_equal(read(compressed(GRAY, syntax, HTJ2K_GRAY), GRAY.shape)[0], GRAY)
    color = compressed(COLOR, syntax, HTJ2K_COLOR, PhotometricInterpretation="YBR_RCT")
    np.testing.assert_array_equal(read(color, COLOR.shape)[0], COLOR)


@pytest.mark.parametrize(
    ("frame", "bits"), [(HTJ2K_SIGNED, 16), (HTJ2K_SIGNED, 12), (JPEG_2000_SIGNED, 12), (JPEG_2000_SIGNED, 16)]
)
def test_signed_jpeg_2000(frame: bytes, bits: int) -> None:
    window = {"WindowCenter": "0", "WindowWidth": "4096"}
    plain = read(raw_dicom(SIGNED, uid.ExplicitVRLittleEndian, **window), SIGNED.shape)[0]
    found = read(compressed(SIGNED, uid.JPEG2000Lossless, frame, BitsStored=bits, **window), SIGNED.shape)[0]
    np.testing.assert_array_equal(found, plain)


@pytest.mark.parametrize("kind", ["u2", "i2"])
@pytest.mark.parametrize("syntax", [uid.JPEG2000Lossless, uid.HTJ2KLossless, uid.JPEGBaseline8Bit])
def test_codestreams_with_fewer_bits_than_declared_are_read(syntax: uid.UID, kind: str) -> None:
    gray = DEEP.astype(np.uint8) if syntax != uid.HTJ2KLossless else GRAY
    frame = HTJ2K_GRAY if syntax == uid.HTJ2KLossless else saved(gray, "JPEG")
    if syntax == uid.JPEG2000Lossless:
        frame = saved(gray, "JPEG2000", no_jp2=True)
    window = {"WindowCenter": "128", "WindowWidth": "256"}
    found, _ = read(compressed(gray.astype(kind), syntax, frame, **window), gray.shape)
    expected = np.asarray(Image.open(io.BytesIO(frame)))
    np.testing.assert_allclose(found, expected, atol=1)


@pytest.mark.parametrize(
    ("elements", "reason"),
    [
        (
            {"PixelRepresentation": 0},
            "BitsStored is 12 and PixelRepresentation 0, but its compressed frame has values from",
        ),
        (
            {"BitsStored": 10},
            "BitsStored is 10 and PixelRepresentation 1, but its compressed frame has values from -1500",
        ),
    ],
)
def test_values_that_do_not_fit_are_rejected(elements: dict[str, object], reason: str) -> None:
    with pytest.raises(ImageRefused, match=reason):
        read(compressed(SIGNED, uid.JPEG2000Lossless, JPEG_2000_SIGNED, **{"BitsStored": 12} | elements), SIGNED.shape)


DEEP = (np.add.outer(np.arange(64), np.arange(64)) * 500).astype(np.uint16)
FRAME = saved(DEEP, "JPEG2000", no_jp2=True)
SHADES = np.rint(DEEP / DEEP.max() * 255)


def test_a_jpeg_2000_codestream_without_end_marker_is_read() -> None:
    for frame in (FRAME[:-2], FRAME[:-2] + b"\0\0", FRAME + b"\0"):
        np.testing.assert_allclose(read(compressed(DEEP, uid.JPEG2000Lossless, frame), DEEP.shape)[0], SHADES, atol=1)


def test_a_jpeg_2000_codestream_in_a_jp2_file_is_read() -> None:
    frame = saved(DEEP, "JPEG2000")
    assert frame.startswith(b"\0\0\0\x0cjP")
    np.testing.assert_allclose(read(compressed(DEEP, uid.JPEG2000Lossless, frame), DEEP.shape)[0], SHADES, atol=1)


@pytest.mark.parametrize("missing", [4, 100, 190])
def test_a_truncated_jpeg_2000_codestream_is_rejected_with_the_missing_part(missing: int) -> None:
    start = FRAME.index(b"\xff\x90")
    (length,) = struct.unpack_from(">L", FRAME, start + 6)
    reason = f"codestream ends early: the tile-part at byte {start} has {length - missing + 2} of {length} bytes"
    with pytest.raises(ImageRefused, match=reason):
        read(compressed(DEEP, uid.JPEG2000Lossless, FRAME[:-missing]), DEEP.shape)


@pytest.mark.parametrize("kept", [2, 20, 60, 120])
def test_a_jpeg_2000_codestream_with_truncated_headers_is_rejected(kept: int) -> None:
    with pytest.raises(
        ImageRefused, match=r"codestream ends early: a header at byte \d+ is truncated|is not a JPEG 2000"
    ):
        read(compressed(DEEP, uid.JPEG2000Lossless, FRAME[:kept]), DEEP.shape)


def test_a_jpeg_2000_codestream_whose_last_byte_may_be_padding_is_rejected() -> None:
    with pytest.raises(ImageRefused, match="codestream ends early: its last byte may be missing"):
        read(compressed(DEEP, uid.JPEG2000Lossless, FRAME[:-3] + b"\0"), DEEP.shape)


def test_a_last_tile_part_of_unknown_length_requires_an_end_marker() -> None:
    start = FRAME.index(b"\xff\x90") + 6
    frame = FRAME[:start] + bytes(4) + FRAME[start + 4 :]
    np.testing.assert_allclose(read(compressed(DEEP, uid.JPEG2000Lossless, frame), DEEP.shape)[0], SHADES, atol=1)
    with pytest.raises(ImageRefused, match="codestream ends early: its last tile-part has no end marker"):
        read(compressed(DEEP, uid.JPEG2000Lossless, frame[:-2]), DEEP.shape)


def test_a_jpeg_2000_codestream_with_missing_tiles_is_rejected() -> None:
    frame = saved(DEEP, "JPEG2000", no_jp2=True, tile_size=(32, 32))
    places = [place for place in range(len(frame)) if frame[place : place + 4] == b"\xff\x90\0\x0a"]
    assert len(places) == 4
    with pytest.raises(ImageRefused, match="codestream has 3 of 4 tiles"):
        read(compressed(DEEP, uid.JPEG2000Lossless, frame[: places[3]] + b"\xff\xd9"), DEEP.shape)
    claims = bytearray(frame)
    claims[places[1] + 11] = 2
    with pytest.raises(ImageRefused, match="codestream has 1 of 2 parts of tile 1"):
        read(compressed(DEEP, uid.JPEG2000Lossless, bytes(claims)), DEEP.shape)


def test_a_third_party_file_with_a_wrong_number_of_tile_parts_is_read() -> None:
    path = get_testdata_file("GDCMJ2K_TextGBR.dcm", download=False)
    assert isinstance(path, str)
    with open(path, "rb") as file:  # noqa: PTH123 - pydicom gives a text
        found, _ = read(file.read(), (400, 400, 3))
    np.testing.assert_allclose(found.mean(axis=(0, 1)), (122.5, 126.4, 124.4), atol=0.1)


def test_unsupported_jpeg_2000_is_reported() -> None:
    plain = saved(COLORS, "JPEG2000", no_jp2=True, mct=0)
    with pytest.raises(ImageRefused, match="YBR_RCT, expected RGB or YBR_FULL for a JPEG 2000 frame without color"):
        read(compressed(COLORS, uid.JPEG2000Lossless, plain, PhotometricInterpretation="YBR_RCT"), COLORS.shape)
    np.testing.assert_array_equal(read(compressed(COLORS, uid.JPEG2000Lossless, plain), COLORS.shape)[0], COLORS)
    transformed = saved(COLORS, "JPEG2000", no_jp2=True, mct=1)
    with pytest.raises(ImageRefused, match="is YBR_FULL, expected YBR_ICT or YBR_RCT for a JPEG 2000 frame with color"):
        read(compressed(COLORS, uid.JPEG2000Lossless, transformed, PhotometricInterpretation="YBR_FULL"), COLORS.shape)
    deep = bytearray(plain)
    deep[42:51:3] = b"\x0b\x0b\x0b"
    with pytest.raises(ImageRefused, match="JPEG 2000 frame has 12 bits in 3 samples, expected at most 8"):
        read(compressed(COLORS, uid.JPEG2000Lossless, bytes(deep)), COLORS.shape)
    deep[42] = 7
    with pytest.raises(ImageRefused, match="components of different sizes or depths"):
        read(compressed(COLORS, uid.JPEG2000Lossless, bytes(deep)), COLORS.shape)
    with pytest.raises(ImageRefused, match="is not a JPEG 2000 codestream"):
        read(compressed(COLORS, uid.JPEG2000Lossless, YCC), COLORS.shape)


@pytest.mark.parametrize(
    ("syntax", "header", "segment"),
    [
        (uid.JPEGBaseline8Bit, b"\xff\xd8", b"\xff\xe0\x00\x02"),
        (uid.JPEGBaseline8Bit, b"\xff\xd8", b"\xff"),
        (uid.JPEG2000, saved(COLORS, "JPEG2000", no_jp2=True)[:51], b"\xff\x64\x00\x02"),
    ],
    ids=["JPEG segments", "JPEG fill bytes", "JPEG 2000 segments"],
)
def test_a_header_with_too_many_segments_is_rejected(syntax: uid.UID, header: bytes, segment: bytes) -> None:
    with pytest.raises(ImageRefused, match="with too many elements or fragments"):
        read(compressed(COLORS, syntax, header + segment * 100_000, PhotometricInterpretation="RGB"), COLORS.shape)
