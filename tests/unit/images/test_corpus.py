"""Every kind of file is read correctly or rejected for the right reason."""

import io
import tracemalloc
import zlib
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from image_corpus import HEIGHT, WIDTH, Case, corpus
from medserve_images import ImageLimits, ImageReader, ImageRefused, Target
from samples.image_files import DEFLATE, LZW, NONE, PACK_BITS, png, png_chunk, tiff

CASES = corpus()
LIMITS = ImageLimits(max_pixels=1_000_000)
# Warnings of decoding, not of converting pixels to the model's color and size.
OF_THE_TARGET = {"COLOR_CONVERTED", "RESIZED", "CROPPED"}


def reader(color: str, height: int = HEIGHT, width: int = WIDTH) -> ImageReader:
    return ImageReader(Target(height, width, "rgb" if color == "rgb" else "gray", "none", "bilinear"), LIMITS)


@pytest.mark.parametrize("case", [case for case in CASES if case.pixels is not None], ids=lambda case: case.name)
def test_a_supported_file_is_read_as_a_viewer_displays_it(case: Case) -> None:
    assert case.pixels is not None
    pixels, warnings = reader("rgb" if case.pixels.ndim == 3 else "gray").read(case.data, 0)
    difference = pixels.reshape(case.pixels.shape).astype(int) - case.pixels
    assert np.abs(difference).max() <= case.tolerance
    assert sorted({warning.kind for warning in warnings} - OF_THE_TARGET) == sorted(case.kinds)


@pytest.mark.parametrize("case", [case for case in CASES if case.pixels is None], ids=lambda case: case.name)
@pytest.mark.parametrize("color", ["gray", "rgb"])
def test_an_unsupported_file_is_rejected_for_its_reason(case: Case, color: str) -> None:
    with pytest.raises(ImageRefused) as caught:
        reader(color).read(case.data, 0)
    assert case.reason in caught.value.reason


def test_names_in_the_corpus_are_unique() -> None:
    assert len({case.name for case in CASES}) == len(CASES)


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_any_supported_tiff_is_read(data: st.DataObject) -> None:
    """Any size, strips, tiles, planes, depth, byte order and compression."""
    height, width = data.draw(st.integers(1, 40), "height"), data.draw(st.integers(1, 40), "width")
    photometric = data.draw(st.sampled_from([0, 1, 2]), "photometric")
    bits = data.draw(st.sampled_from([8, 10, 12, 14, 16] if photometric == 2 else [1, 2, 4, 8, 10, 12, 14, 16]), "bits")
    compression = data.draw(st.sampled_from([NONE, DEFLATE, LZW, PACK_BITS]), "compression")
    seed = data.draw(st.integers(0, 2**32), "seed")
    count = 3 if photometric == 2 else 1
    samples = np.random.default_rng(seed).integers(0, 2**bits, (height, width, count))
    stored = 2**bits - 1 - samples if photometric == 0 else samples
    file = tiff(
        stored,
        bits,
        photometric,
        order=data.draw(st.sampled_from(["<", ">"]), "order"),
        compression=compression,
        predictor=data.draw(st.sampled_from([1, 2]), "predictor")
        if bits in {8, 16} and compression in {DEFLATE, LZW}
        else 1,
        rows=data.draw(st.none() | st.integers(1, height), "rows"),
        tile=data.draw(st.none() | st.tuples(st.sampled_from([16, 32]), st.sampled_from([16, 48])), "tile"),
        separate=data.draw(st.booleans(), "separate"),
        fill_order=data.draw(st.sampled_from([1, 2]), "fill order"),
        big=data.draw(st.booleans(), "big"),
    )
    pixels, _ = reader("rgb" if count == 3 else "gray", height, width).read(file)
    np.testing.assert_allclose(pixels, samples * (255 / (2**bits - 1)), atol=1)


@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_any_supported_png_is_read(data: st.DataObject) -> None:
    height, width = data.draw(st.integers(1, 40), "height"), data.draw(st.integers(1, 40), "width")
    color, depth = data.draw(st.sampled_from([(0, 1), (0, 2), (0, 4), (0, 8), (0, 16), (2, 8), (2, 16)]), "kind")
    count = 3 if color == 2 else 1
    generator = np.random.default_rng(data.draw(st.integers(0, 2**32), "seed"))
    samples = generator.integers(0, 2**depth, (height, width, count))
    file = png(samples, depth, color, interlaced=data.draw(st.booleans(), "interlaced"))
    pixels, _ = reader("rgb" if count == 3 else "gray", height, width).read(file)
    np.testing.assert_allclose(pixels, samples * (255 / (2**depth - 1)), atol=1)


@pytest.mark.parametrize("interlaced", [False, True])
@pytest.mark.parametrize(("color", "depth"), [(0, 1), (0, 4), (0, 8), (0, 16), (2, 8), (2, 16)])
def test_a_png_with_missing_rows_is_rejected(color: int, depth: int, *, interlaced: bool) -> None:
    samples = np.ones((19, 21, 3 if color == 2 else 1), int)
    file = png(samples, depth, color, interlaced=interlaced)
    place = file.index(b"IDAT")
    lines = zlib.decompress(file[place + 4 :])
    head, tail = file[: place - 4], png_chunk(b"IEND", b"")
    row = len(lines) // 19
    for kept in [*range(0, len(lines), row), *range(1, len(lines), 97), len(lines) - 1]:
        with pytest.raises(ImageRefused, match="is corrupt"):
            reader("gray", 19, 21).read(head + png_chunk(b"IDAT", zlib.compress(lines[:kept])) + tail)
    several = b"".join(png_chunk(b"IDAT", bytes([byte])) for byte in zlib.compress(lines))
    reader("gray", 19, 21).read(head + several + tail)


SMALL = [case.data for case in CASES[::3] if not case.name.startswith("dicom")]


@settings(max_examples=500, deadline=None)
@given(data=st.data())
def test_a_damaged_file_of_any_kind_is_read_or_rejected(data: st.DataObject) -> None:
    content = bytearray(data.draw(st.sampled_from(SMALL)))
    for _ in range(data.draw(st.integers(1, 8))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    try:
        pixels, _ = reader("gray").read(bytes(content[: data.draw(st.none() | st.integers(0, len(content)))]))
    except ImageRefused:
        return
    assert pixels.shape == (HEIGHT, WIDTH, 1)


def test_a_tiff_whose_tiles_are_mostly_padding_is_rejected() -> None:
    samples = np.zeros((4000, 1, 1), int)
    data = tiff(samples, 8, 1, tile=(16, 60_000), compression=DEFLATE)
    with pytest.raises(ImageRefused, match="too large") as caught:
        reader("gray").read(data)
    assert caught.value.limit == "decompression"


@pytest.mark.parametrize("big", [False, True])
def test_a_tiff_with_very_many_tiny_strips_is_rejected(*, big: bool) -> None:
    samples = np.zeros((900_000, 1, 1), int)
    data = tiff(samples, 8, 1, big=big, tags={278: (4, [1]), 273: (4, [8] * 900_000), 279: (4, [1] * 900_000)})
    with pytest.raises(ImageRefused) as caught:
        reader("gray").read(data)
    assert caught.value.limit == "image_parts"


def test_a_tiff_whose_pages_form_a_loop_is_read_once() -> None:
    samples = np.arange(HEIGHT * WIDTH).reshape(HEIGHT, WIDTH, 1) % 256
    data = bytearray(tiff(samples, 8, 1))
    data[-4:] = data[4:8]  # the directory refers to itself as the next one
    pixels, _ = reader("gray").read(bytes(data))
    np.testing.assert_array_equal(pixels, samples)


def strip_places(data: bytes) -> tuple[list[int], list[int]]:
    """Returns offsets and byte counts of the strips or tiles, as Pillow reads the tags."""
    with Image.open(io.BytesIO(data)) as image:
        tags = image.tag_v2  # type: ignore[attr-defined]
        places = (324, 325) if 324 in tags else (273, 279)
        return list(tags[places[0]]), list(tags[places[1]])


def directory_first(samples: NDArray[np.int64], bits: int, options: dict[str, Any]) -> bytes:
    """A TIFF file whose strips or tiles follow its directory, so that truncation removes pixels but no tags."""
    file = tiff(samples, bits, 1, **options)
    offsets, counts = strip_places(file)
    moved = [offset - 8 + len(file) for offset in offsets]
    place = 324 if "tile" in options else 273
    return tiff(samples, bits, 1, tags={place: (4, moved)}, **options) + file[8 : 8 + sum(counts)]


@pytest.mark.parametrize("full_range", [0, 1])
@pytest.mark.parametrize("matrix", [0, 1])
@pytest.mark.parametrize("transfer", range(20))
@pytest.mark.parametrize("primaries", [1, 9, 12])
def test_a_png_is_read_or_rejected_by_its_code_points(
    primaries: int, transfer: int, matrix: int, full_range: int
) -> None:
    samples = np.random.default_rng(transfer).integers(0, 256, (HEIGHT, WIDTH, 3))
    file = png(samples, 8, 2, (b"cICP", bytes([primaries, transfer, matrix, full_range])))
    if transfer in {1, 6, 13, 14, 15} and matrix == 0 and full_range == 1:
        pixels, warnings = reader("rgb").read(file)
        np.testing.assert_array_equal(pixels, samples)
        assert [warning.kind for warning in warnings] == ["PROFILE_IGNORED"] * (primaries != 1)
        return
    with pytest.raises(ImageRefused) as caught:
        reader("rgb").read(file)
    if transfer not in {1, 6, 13, 14, 15}:
        assert f"transfer function {transfer} (cICP" in caught.value.reason
    else:
        assert ("matrix coefficients 1 (cICP)" if matrix else "narrow-range samples (cICP)") in caught.value.reason


@pytest.mark.parametrize("length", [0, 3, 5])
def test_a_png_without_exactly_four_code_points_is_rejected(length: int) -> None:
    file = png(np.zeros((HEIGHT, WIDTH, 3), int), 8, 2, (b"cICP", b"\1" * length))
    with pytest.raises(ImageRefused, match="is corrupt"):
        reader("rgb").read(file)


COMPRESSIONS = {"none": NONE, "deflate": DEFLATE, "lzw": LZW, "pack-bits": PACK_BITS}
LAYOUTS: dict[str, dict[str, Any]] = {"one-strip": {}, "strips": {"rows": 10}, "tiles": {"tile": (16, 16)}}


@pytest.mark.parametrize("cut", [1, 20, 60, 100])
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("compression", COMPRESSIONS)
@pytest.mark.parametrize("bits", [1, 8, 12, 16])
def test_a_tiff_truncated_within_its_pixels_is_rejected(bits: int, compression: str, layout: str, cut: int) -> None:
    samples = np.random.default_rng(cut).integers(0, 2**bits, (64, 64, 1))
    file = directory_first(samples, bits, {"compression": COMPRESSIONS[compression], **LAYOUTS[layout]})
    pixels, _ = reader("gray", 64, 64).read(file)
    np.testing.assert_allclose(pixels, samples * (255 / (2**bits - 1)), atol=1)
    with pytest.raises(ImageRefused, match="is corrupt"):
        reader("gray", 64, 64).read(file[:-cut])


@pytest.mark.parametrize("which", [0, -1], ids=["first", "last"])
@pytest.mark.parametrize("separate", [False, True])
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_a_tiff_with_a_short_strip_or_tile_is_rejected(
    compression: str, layout: str, which: int, *, separate: bool
) -> None:
    samples = np.random.default_rng(1).integers(0, 256, (64, 64, 3))
    options: dict[str, Any] = {"compression": COMPRESSIONS[compression], "separate": separate, **LAYOUTS[layout]}
    _, counts = strip_places(tiff(samples, 8, 2, **options))
    counts[which] //= 2
    place = 325 if "tile" in options else 279
    with pytest.raises(ImageRefused, match="is corrupt"):
        reader("rgb", 64, 64).read(tiff(samples, 8, 2, tags={place: (4, counts)}, **options))


def encoded_strip(image: Image.Image, compression: str) -> tuple[bytes, dict[int, tuple[int, list[int]]]]:
    """Returns the only strip of a TIFF file compressed by libtiff, and the tags that its decoder needs."""
    file = io.BytesIO()
    image.save(file, "TIFF", compression=compression, strip_size=10**6)
    (offset,), (count,) = strip_places(file.getvalue())
    with Image.open(file) as saved:
        tables = saved.tag_v2.get(347)  # type: ignore[attr-defined]
    tags = {317: (3, []), **({347: (7, list(tables))} if tables else {})}
    return file.getvalue()[offset : offset + count], tags


PICTURES = {
    "noise": np.random.default_rng(2).integers(0, 256, (64, 64), np.uint8),
    "smooth": np.add.outer(np.arange(64), np.arange(0, 128, 2)).astype(np.uint8),
    "squares": np.kron(np.random.default_rng(3).integers(0, 2, (8, 8)), np.full((8, 8), 255)).astype(np.uint8),
}


@pytest.mark.parametrize("picture", PICTURES)
@pytest.mark.parametrize(
    ("name", "number"),
    [
        ("tiff_ccitt", 2),
        ("group3", 3),
        ("group4", 4),
        ("tiff_lzw", 5),
        ("jpeg", 7),
        ("tiff_adobe_deflate", 8),
        ("packbits", 32773),
        ("zstd", 50000),
    ],
)
def test_a_compressed_strip_truncated_anywhere_is_rejected_or_read_correctly(
    name: str, number: int, picture: str
) -> None:
    pixels = PICTURES[picture]
    bits = 1 if number in {2, 3, 4} else 8
    strip, tags = encoded_strip(Image.fromarray(pixels > 127 if bits == 1 else pixels), name)
    shape = np.zeros((64, 64, 1), int)
    whole, _ = reader("gray", 64, 64).read(tiff(shape, bits, 1, compression=number, parts=[strip], tags=tags))
    refused = 0
    for kept in np.linspace(1, len(strip) - 1, 40).astype(int):
        file = tiff(shape, bits, 1, compression=number, parts=[strip[:kept]], tags=tags)
        try:
            cut, _ = reader("gray", 64, 64).read(file)
        except ImageRefused:
            refused += 1
        else:
            np.testing.assert_array_equal(cut, whole)
    assert refused > 20


@pytest.mark.parametrize("picture", ["noise", "smooth"])
def test_a_truncated_jpeg_strip_with_a_new_end_marker_is_rejected(picture: str) -> None:
    strip, tags = encoded_strip(Image.fromarray(PICTURES[picture]), "jpeg")
    shape = np.zeros((64, 64, 1), int)
    for end in (strip, strip + bytes(3), strip[:-2] + b"padding" + strip[-2:]):
        reader("gray", 64, 64).read(tiff(shape, 8, 1, compression=7, parts=[end], tags=tags))
    start = strip.index(b"\xff\xda") + 10
    for kept in np.linspace(start, len(strip) - 12, 10).astype(int):
        cut = strip[:kept].rstrip(b"\xff") + b"\xff\xd9"
        with pytest.raises(ImageRefused, match="is corrupt"):
            reader("gray", 64, 64).read(tiff(shape, 8, 1, compression=7, parts=[cut], tags=tags))


@pytest.mark.parametrize("fill_order", [1, 2])
def test_a_deflate_strip_with_an_altered_byte_is_rejected(fill_order: int) -> None:
    samples = PICTURES["smooth"][..., None].astype(int)
    offsets, counts = strip_places(tiff(samples, 8, 1, compression=DEFLATE))
    file = tiff(samples, 8, 1, compression=DEFLATE, fill_order=fill_order)
    reader("gray", 64, 64).read(file)
    for place in range(offsets[0] + 2, offsets[0] + counts[0]):
        altered = bytearray(file)
        altered[place] ^= 16
        with pytest.raises(ImageRefused, match="is corrupt"):
            reader("gray", 64, 64).read(bytes(altered))


@pytest.mark.parametrize("bits", [10, 12, 14])
def test_decompressing_one_large_strip_uses_little_memory(bits: int) -> None:
    """The strip is in memory several times: in the file, in the file passed to libtiff, and decompressed."""
    side = 2048
    row = (np.arange(side * bits // 8) % 256).astype(np.uint8)
    packed = np.tile(row, (side, 1)).tobytes()
    file = tiff(np.broadcast_to(np.int8(0), (side, side, 1)), bits, 1, parts=[packed])
    unlimited = ImageReader(Target(64, 64, "gray", "none", "bilinear"), ImageLimits())
    tracemalloc.start()
    try:
        unlimited.read(file)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 6 * len(packed) + 2 * side * side + 2**24
