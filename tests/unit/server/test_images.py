import io

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image

from medserve_proto.v1 import manifest_pb2
from medserve_server.errors import InvalidInput
from medserve_server.images import ImageReader

GRAY = manifest_pb2.ImageInput(
    height=28,
    width=28,
    color_space=manifest_pb2.COLOR_SPACE_GRAY,
    crop=manifest_pb2.CROP_CENTER,
    resampling=manifest_pb2.RESAMPLING_BICUBIC,
)
RGB = manifest_pb2.ImageInput(
    height=10,
    width=20,
    color_space=manifest_pb2.COLOR_SPACE_RGB,
    crop=manifest_pb2.CROP_NONE,
    resampling=manifest_pb2.RESAMPLING_BILINEAR,
)


def encode(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def gradient(mode: str, size: tuple[int, int] = (40, 40)) -> Image.Image:
    return Image.linear_gradient("L").resize(size).convert(mode)


SAMPLES = [
    encode(gradient("L")),
    encode(gradient("RGB"), "JPEG"),
    encode(gradient("L"), "TIFF", compression="tiff_lzw"),
    encode(gradient("P")),
]
damages = st.lists(st.tuples(st.integers(0, 3000), st.integers(0, 255)), max_size=8)


@settings(max_examples=300, deadline=None)
@given(
    sample=st.sampled_from(SAMPLES),
    cut=st.integers(0, 3000),
    places=st.lists(st.tuples(st.integers(0, 3000), st.integers(0, 255)), max_size=8),
)
def test_a_damaged_file_is_decoded_or_refused_and_nothing_else(
    sample: bytes, cut: int, places: list[tuple[int, int]]
) -> None:
    data = bytearray(sample[: len(sample) - cut % len(sample)])
    for place, value in places:
        data[place % len(data)] = value
    try:
        pixels, _ = ImageReader(GRAY, 1_000_000, 200).from_encoded(bytes(data), "image")
    except InvalidInput:
        return
    assert pixels.shape == (28, 28, 1)
    assert pixels.dtype == np.uint8


@settings(deadline=None)
@given(st.binary(max_size=200))
@example(b"")
def test_random_bytes_are_refused(data: bytes) -> None:
    with pytest.raises(InvalidInput):
        ImageReader(GRAY, 1_000_000, 200).from_encoded(data, "image")


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "CMYK"])
@pytest.mark.parametrize("target", [GRAY, RGB], ids=["gray", "rgb"])
def test_every_usual_mode_is_read(mode: str, target: manifest_pb2.ImageInput) -> None:
    data = encode(gradient(mode), "TIFF")
    pixels, _ = ImageReader(target, 1_000_000, 200).from_encoded(data, "image")
    assert pixels.shape == (target.height, target.width, 3 if target is RGB else 1)
    assert pixels[0].mean() < 40
    assert pixels[-1].mean() > 215


def test_an_opaque_alpha_channel_is_dropped() -> None:
    data = encode(gradient("LA"))
    pixels, _ = ImageReader(GRAY, 1_000_000, 200).from_encoded(data, "image")
    plain, _ = ImageReader(GRAY, 1_000_000, 200).from_encoded(encode(gradient("L")), "image")
    np.testing.assert_array_equal(pixels, plain)


def test_a_picture_turned_by_its_exif_tag_is_turned_back() -> None:
    exif = Image.Exif()
    exif[0x0112] = 3  # Orientation: turned by 180 degrees
    turned = encode(gradient("L").rotate(180), "PNG", exif=exif)
    pixels, _ = ImageReader(GRAY, 1_000_000, 200).from_encoded(turned, "image")
    plain, _ = ImageReader(GRAY, 1_000_000, 200).from_encoded(encode(gradient("L")), "image")
    np.testing.assert_allclose(pixels.astype(int), plain.astype(int), atol=2)


@given(width=st.integers(1, 90), height=st.integers(1, 90))
@settings(deadline=None, max_examples=40)
def test_any_size_is_fitted(width: int, height: int) -> None:
    data = encode(gradient("L", (width, height)))
    pixels, warnings = ImageReader(GRAY, 1_000_000, 200).from_encoded(data, "image")
    assert pixels.shape == (28, 28, 1)
    kinds = [warning.kind for warning in warnings]
    assert ("CROPPED" in kinds) == (width != height)
    assert ("RESIZED" in kinds) == ((width, height) != (28, 28))


def test_the_middle_is_kept() -> None:
    image = Image.new("L", (84, 28), 255)
    image.paste(100, (28, 0, 56, 28))
    pixels, _ = ImageReader(GRAY, 1_000_000, 200).from_encoded(encode(image), "image")
    assert (pixels == 100).all()
