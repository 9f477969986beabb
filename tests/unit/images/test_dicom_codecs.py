"""Compressed DICOM files: every supported transfer syntax reproduces the encoded pixels."""

import io
import struct
from collections.abc import Callable, Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image
from pydicom import uid
from pydicom.data import get_testdata_file
from pydicom.pixels.encoders.base import RLELosslessEncoder

from medserve_images import ImageLimits, ImageReader, Target
from samples.dicom_files import dicom

RANDOM = np.random.default_rng(2)
LIMITS = ImageLimits(max_pixels=1_000_000)


def read(data: bytes, shape: tuple[int, ...], frame: int = 0) -> NDArray[np.uint8]:
    target = Target(
        height=shape[0],
        width=shape[1],
        color="rgb" if len(shape) == 3 else "gray",
        crop="none",
        resampling="bilinear",
    )
    return ImageReader(target, LIMITS).read(data, frame)[0].reshape(shape)


def smooth(shape: tuple[int, ...], bits: int) -> NDArray[np.uint16]:
    """An image with gradients, edges and a little noise."""
    rows, columns = shape[:2]
    slope = np.add.outer(np.arange(rows), np.arange(columns)) * ((1 << bits) - 1) // (rows + columns)
    slope[: rows // 2] //= 3
    picture = slope if len(shape) == 2 else np.stack([slope, slope[::-1], slope // 2], axis=-1)
    return np.clip(picture + RANDOM.integers(-3, 4, shape), 0, (1 << bits) - 1).astype(np.uint16)


def saved(pixels: NDArray[np.generic], kind: str, **options: object) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind, **options)
    return file.getvalue()


def jpeg_lossless(pixels: NDArray[np.generic], precision: int) -> bytes:
    """A minimal lossless JPEG encoder, selection value 1, with 5-bit codes for the 17 categories."""
    samples = pixels.reshape(*pixels.shape[:2], -1)
    rows, columns, components = samples.shape
    text: list[str] = []
    for row in range(rows):
        for column in range(columns):
            for component in range(components):
                if column:
                    predicted = int(samples[row, column - 1, component])
                else:
                    predicted = int(samples[row - 1, 0, component]) if row else 1 << (precision - 1)
                difference = (int(samples[row, column, component]) - predicted + 32767) % 65536 - 32767
                category = abs(difference).bit_length()
                text.append(f"{category:05b}")
                if 0 < category < 16:
                    bits = difference if difference > 0 else difference + (1 << category) - 1
                    text.append(f"{bits:0{category}b}")
    stream = "".join(text)
    stream += "1" * (-len(stream) % 8)
    scan = int(stream, 2).to_bytes(len(stream) // 8, "big").replace(b"\xff", b"\xff\x00")
    frame = struct.pack(">BHHB", precision, rows, columns, components)
    frame += b"".join(bytes([number, 0x11, 0]) for number in range(components))
    table = bytes([0, 0, 0, 0, 0, 17, *[0] * 11, *range(17)])
    header = bytes([components]) + b"".join(bytes([number, 0]) for number in range(components)) + b"\x01\x00\x00"

    def segment(marker: int, content: bytes) -> bytes:
        return struct.pack(">BBH", 0xFF, marker, len(content) + 2) + content

    return b"\xff\xd8" + segment(0xC3, frame) + segment(0xC4, table) + segment(0xDA, header) + scan + b"\xff\xd9"


def rle(pixels: NDArray[np.generic]) -> bytes:
    return RLELosslessEncoder.encode(
        pixels,
        encoding_plugin="pydicom",
        rows=pixels.shape[0],
        columns=pixels.shape[1],
        samples_per_pixel=3 if pixels.ndim == 3 else 1,
        photometric_interpretation="RGB" if pixels.ndim == 3 else "MONOCHROME2",
        bits_allocated=8 * pixels.dtype.itemsize,
        bits_stored=8 * pixels.dtype.itemsize,
        pixel_representation=0,
        number_of_frames=1,
        planar_configuration=0,
    )


LOSSLESS: dict[str, tuple[uid.UID, Callable[[NDArray[np.generic], int], bytes]]] = {
    "RLE": (uid.RLELossless, lambda pixels, _: rle(pixels)),
    "JPEG lossless": (uid.JPEGLosslessSV1, jpeg_lossless),
    "JPEG lossless, any selection value": (uid.JPEGLossless, jpeg_lossless),
    "JPEG 2000": (uid.JPEG2000Lossless, lambda pixels, _: saved(pixels, "JPEG2000", no_jp2=True)),
}


@pytest.mark.parametrize("name", LOSSLESS)
def test_8_bit_gray_is_decoded(name: str) -> None:
    syntax, encode = LOSSLESS[name]
    pixels = smooth((31, 45), 8).astype(np.uint8)
    found = read(dicom(pixels, syntax=syntax, encoded=[encode(pixels, 8)]), pixels.shape)
    np.testing.assert_array_equal(found, pixels)


@pytest.mark.parametrize("name", LOSSLESS)
def test_16_bit_gray_decodes_as_without_compression(name: str) -> None:
    syntax, encode = LOSSLESS[name]
    pixels = smooth((31, 45), 16)
    window = {"WindowCenter": "30000", "WindowWidth": "40000"}
    plain = read(dicom(pixels, **window), pixels.shape)  # type: ignore[arg-type]  # elements are none of its options
    data = dicom(pixels, syntax=syntax, encoded=[encode(pixels, 16)], **window)  # type: ignore[arg-type]
    np.testing.assert_array_equal(read(data, pixels.shape), plain)


@pytest.mark.parametrize("name", [name for name in LOSSLESS if name != "JPEG 2000"])
def test_rgb_is_decoded(name: str) -> None:
    syntax, encode = LOSSLESS[name]
    pixels = smooth((20, 30, 3), 8).astype(np.uint8)
    found = read(dicom(pixels, syntax=syntax, encoded=[encode(pixels, 8)]), pixels.shape)
    np.testing.assert_array_equal(found, pixels)


@pytest.mark.parametrize("name", LOSSLESS)
def test_one_of_several_frames_is_decoded(name: str) -> None:
    syntax, encode = LOSSLESS[name]
    frames = np.stack([smooth((9, 9), 8).astype(np.uint8) for _ in range(4)])
    encoded = [encode(frame, 8) for frame in frames]
    encoded[1] = b"broken"
    data = dicom(frames, syntax=syntax, frames=4, encoded=encoded)
    for index in (0, 2, 3):
        np.testing.assert_array_equal(read(data, (9, 9), index), frames[index])


def test_the_reversible_color_transform_of_jpeg_2000() -> None:
    pixels = smooth((40, 30, 3), 8).astype(np.uint8)
    encoded = saved(pixels, "JPEG2000", no_jp2=True, mct=1)
    data = dicom(pixels, syntax=uid.JPEG2000Lossless, encoded=[encoded], PhotometricInterpretation="YBR_RCT")
    np.testing.assert_array_equal(read(data, pixels.shape), pixels)


def test_baseline_jpeg_decodes_as_in_pillow() -> None:
    gray = smooth((40, 30), 8).astype(np.uint8)
    encoded = saved(gray, "JPEG")
    data = dicom(gray, syntax=uid.JPEGBaseline8Bit, encoded=[encoded])
    np.testing.assert_array_equal(read(data, gray.shape), np.asarray(Image.open(io.BytesIO(encoded))))
    color = smooth((40, 30, 3), 8).astype(np.uint8)
    encoded = saved(color, "JPEG")
    data = dicom(color, syntax=uid.JPEGBaseline8Bit, encoded=[encoded], PhotometricInterpretation="YBR_FULL_422")
    reference = np.asarray(Image.open(io.BytesIO(encoded))).astype(int)
    np.testing.assert_allclose(read(data, color.shape).astype(int), reference, atol=2)


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_lossless_jpeg_of_any_pixels(data: st.DataObject) -> None:
    rows, columns, precision = (data.draw(st.integers(low, high)) for low, high in ((1, 6), (1, 6), (9, 16)))
    values = st.one_of(st.integers(0, (1 << precision) - 1), st.sampled_from([0, (1 << precision) - 1]))
    listed = data.draw(st.lists(values, min_size=rows * columns, max_size=rows * columns))
    pixels = np.array(listed, np.uint16).reshape(rows, columns)
    file = dicom(pixels, syntax=uid.JPEGLosslessSV1, encoded=[jpeg_lossless(pixels, precision)], BitsStored=precision)
    np.testing.assert_array_equal(read(file, pixels.shape), read(dicom(pixels, BitsStored=precision), pixels.shape))


def test_lossless_jpeg_longer_than_one_decoding_step() -> None:
    pixels = RANDOM.integers(0, 65536, (250, 260)).astype(np.uint16)
    file = dicom(pixels, syntax=uid.JPEGLosslessSV1, encoded=[jpeg_lossless(pixels, 16)])
    np.testing.assert_array_equal(read(file, pixels.shape), read(dicom(pixels), pixels.shape))
    color = RANDOM.integers(0, 256, (150, 200, 3)).astype(np.uint8)
    file = dicom(color, syntax=uid.JPEGLosslessSV1, encoded=[jpeg_lossless(color, 8)])
    np.testing.assert_array_equal(read(file, color.shape), color)


def shipped(name: str) -> bytes:
    """A file from pydicom's test data."""
    path = get_testdata_file(name, download=False)
    assert isinstance(path, str)
    with open(path, "rb") as file:  # noqa: PTH123 - pydicom gives a text
        return file.read()


def same_pictures() -> Iterator[tuple[str, str, tuple[int, ...]]]:
    for name in ("RLE", "bigendian", "implicit", "expb", "jp2klossless", "padded"):
        yield f"MR_small_{name}.dcm", "MR_small.dcm", (64, 64)
    # From encoders other than those above.
    yield "SC_rgb_jpeg_gdcm.dcm", "SC_rgb_rle.dcm", (100, 100, 3)
    yield "SC_rgb_gdcm_KY.dcm", "SC_rgb_rle.dcm", (100, 100, 3)


@pytest.mark.parametrize(("name", "same", "shape"), list(same_pictures()))
def test_third_party_files_in_several_syntaxes_have_the_same_pixels(
    name: str, same: str, shape: tuple[int, ...]
) -> None:
    found = read(shipped(name), shape)
    np.testing.assert_array_equal(found, read(shipped(same), shape))
    assert found.std() > 10
