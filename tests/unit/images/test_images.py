import base64
import io
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image, PngImagePlugin

from medserve_images import ImageLimits, ImageReader, ImageRefused, Target
from samples.image_files import tiff

LIMITS = ImageLimits(max_pixels=1_000_000)
GRAY = Target(
    height=28,
    width=28,
    color="gray",
    crop="center",
    resampling="bicubic",
)
RGB = Target(
    height=10,
    width=20,
    color="rgb",
    crop="none",
    resampling="bilinear",
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


@settings(max_examples=300, deadline=None)
@given(
    sample=st.sampled_from(SAMPLES),
    cut=st.integers(0, 3000),
    places=st.lists(st.tuples(st.integers(0, 3000), st.integers(0, 255)), max_size=8),
)
def test_a_damaged_file_is_only_ever_decoded_or_rejected(
    sample: bytes, cut: int, places: list[tuple[int, int]]
) -> None:
    data = bytearray(sample[: len(sample) - cut % len(sample)])
    for place, value in places:
        data[place % len(data)] = value
    try:
        pixels, _ = ImageReader(GRAY, LIMITS).read(bytes(data))
    except ImageRefused:
        return
    assert pixels.shape == (28, 28, 1)
    assert pixels.dtype == np.uint8


@settings(deadline=None)
@given(st.binary(max_size=200))
@example(b"")
def test_random_bytes_are_rejected(data: bytes) -> None:
    with pytest.raises(ImageRefused):
        ImageReader(GRAY, LIMITS).read(data)


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "CMYK"])
@pytest.mark.parametrize("target", [GRAY, RGB], ids=["gray", "rgb"])
def test_every_common_mode_is_read(mode: str, target: Target) -> None:
    data = encode(gradient(mode), "TIFF")
    pixels, _ = ImageReader(target, LIMITS).read(data)
    assert pixels.shape == (target.height, target.width, 3 if target is RGB else 1)
    assert pixels[0].mean() < 40
    assert pixels[-1].mean() > 215


def test_an_opaque_alpha_channel_is_dropped() -> None:
    data = encode(gradient("LA"))
    pixels, _ = ImageReader(GRAY, LIMITS).read(data)
    plain, _ = ImageReader(GRAY, LIMITS).read(encode(gradient("L")))
    np.testing.assert_array_equal(pixels, plain)


def test_the_exif_orientation_is_applied() -> None:
    exif = Image.Exif()
    exif[0x0112] = 3  # Orientation: rotated by 180 degrees
    turned = encode(gradient("L").rotate(180), "PNG", exif=exif)
    pixels, _ = ImageReader(GRAY, LIMITS).read(turned)
    plain, _ = ImageReader(GRAY, LIMITS).read(encode(gradient("L")))
    np.testing.assert_allclose(pixels.astype(int), plain.astype(int), atol=2)


XMP = b"""<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">
<rdf:Description xmlns:tiff="http://ns.adobe.com/tiff/1.0/" tiff:Orientation="3"/></rdf:RDF></x:xmpmeta>"""


@pytest.mark.parametrize("orientation", [None, 1, 3])
@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_the_orientation_in_xmp_is_ignored(kind: str, orientation: int | None) -> None:
    options: dict[str, object] = {}
    if orientation is not None:
        exif = Image.Exif()
        exif[0x0112] = orientation
        options["exif"] = exif
    if kind == "JPEG":
        options["xmp"] = XMP
    else:
        info = PngImagePlugin.PngInfo()
        info.add_itxt("XML:com.adobe.xmp", XMP.decode())
        options["pnginfo"] = info
    stored = gradient("L").rotate(180) if orientation == 3 else gradient("L")
    pixels, _ = ImageReader(GRAY, LIMITS).read(encode(stored, kind, **options))
    plain, _ = ImageReader(GRAY, LIMITS).read(encode(gradient("L")))
    np.testing.assert_allclose(pixels.astype(int), plain.astype(int), atol=3)


@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK"])
@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"restart_marker_blocks": 20}], ids=str)
@pytest.mark.parametrize("size", [(5, 7), (90, 60), (400, 300)])
def test_a_truncated_jpeg_with_a_new_end_marker_is_rejected(
    mode: str, options: dict[str, object], size: tuple[int, int]
) -> None:
    noise = np.random.default_rng(1).integers(0, 256, (size[1], size[0], 3), np.uint8)
    data = encode(Image.fromarray(noise).convert(mode), "JPEG", **options)
    ImageReader(GRAY, LIMITS).read(data)
    ImageReader(GRAY, LIMITS).read(data + b"trailing bytes")
    ImageReader(GRAY, LIMITS).read(data[:-2] + b"padding" + data[-2:])
    start = data.index(b"\xff\xda") + 14
    for kept in (0.1, 0.5, 0.8):
        cut = data[: start + int((len(data) - start) * kept)].rstrip(b"\xff")
        with pytest.raises(ImageRefused, match="is corrupt"):
            ImageReader(GRAY, LIMITS).read(cut + b"\xff\xd9")


# 8 x 8 samples of lossless JPEG (ISO/IEC 10918-1, annex H): 37 times the index, modulo 251.
LOSSLESS = base64.b64decode(
    "/9j/wwALCAAIAAgBABEA/8QAJAAAAAAAEQAAAAAAAAAAAAAAAAECAwQFBgcICQoLDA0ODxD/2gAIAQAAAQAAQ/mlNKaU0ppTSoKT"
    "WmlNKaU0ppUFJpTWmlNKaU0qCk0ppTWmlNKaVBSaU0ppTWmlQUmlNKaU0ppTWoKTSmlNKaU0ppUGJpTSmlNKaU0qCk1ppTSmlNKa"
    "VBSaX//Z"
)


def test_a_lossless_jpeg_is_read_exactly_and_rejected_if_truncated() -> None:
    reader = ImageReader(Target(8, 8, "gray", "none", "bilinear"), LIMITS)
    pixels, _ = reader.read(LOSSLESS)
    np.testing.assert_array_equal(pixels[..., 0], np.arange(64).reshape(8, 8) * 37 % 251)
    start = LOSSLESS.index(b"\xff\xda") + 10
    for kept in range(start, len(LOSSLESS) - 6):
        with pytest.raises(ImageRefused, match="is corrupt"):
            reader.read(LOSSLESS[:kept].rstrip(b"\xff") + b"\xff\xd9")


@pytest.mark.parametrize("photometric", [0, 1])
def test_values_far_below_their_range_are_reported_without_mention_of_brightness(photometric: int) -> None:
    data = tiff(np.full((28, 28, 1), 4000), 16, photometric)
    pixels, warnings = ImageReader(GRAY, LIMITS).read(data)
    assert (pixels == (240 if photometric == 0 else 15)).all()
    text = "all values are below 4096, although 16 bits hold up to 65535: the image uses only a small part of its"
    assert [warning.message for warning in warnings if warning.kind == "RANGE_UNUSED"] == [f"{text} value range"]


@given(width=st.integers(1, 90), height=st.integers(1, 90))
@settings(deadline=None, max_examples=40)
def test_any_size_is_fitted(width: int, height: int) -> None:
    data = encode(gradient("L", (width, height)))
    pixels, warnings = ImageReader(GRAY, LIMITS).read(data)
    assert pixels.shape == (28, 28, 1)
    kinds = [warning.kind for warning in warnings]
    assert ("CROPPED" in kinds) == (width != height)
    assert ("RESIZED" in kinds) == (min(width, height) != 28)


def test_the_center_is_kept() -> None:
    image = Image.new("L", (84, 28), 255)
    image.paste(100, (28, 0, 56, 28))
    pixels, _ = ImageReader(GRAY, LIMITS).read(encode(image))
    assert (pixels == 100).all()


OUT_OF_MEMORY = """
import logging, resource, sys
from medserve_images import ImageLimits, ImageReader, ImageRefused, Target

logging.basicConfig(format="%(message)s")
reader = ImageReader(Target(28, 28, "gray", "none", "bilinear"), ImageLimits())
small, large = (open(path, "rb").read() for path in sys.argv[1:])
reader.read(small)
(used,) = [int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmSize")]
resource.setrlimit(resource.RLIMIT_AS, (used * 1024 + 2**24, -1))
try:
    reader.read(large)
except ImageRefused as error:
    print(error.reason)
reader.read(small)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="limits the address space of a process")
@pytest.mark.process
def test_an_unexpected_decoder_error_rejects_only_that_image(tmp_path: Path) -> None:
    """Otherwise a request with that image would fail with INTERNAL, together with the others."""
    small, large = tmp_path / "small", tmp_path / "large"
    small.write_bytes(encode(gradient("L")))
    large.write_bytes(encode(gradient("RGB", (6000, 6000)).effect_spread(9)))
    done = subprocess.run(
        [sys.executable, "-c", OUT_OF_MEMORY, small, large], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"cannot be decoded ({large.stat().st_size} bytes, MemoryError); it may be corrupt\n"
    assert done.stderr == f"an image of {large.stat().st_size} bytes could not be decoded: MemoryError\n"
