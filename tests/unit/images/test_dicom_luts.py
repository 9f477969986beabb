"""Lookup tables of DICOM files: values computed here from the standard, for every encoding of a table."""

from itertools import product

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from pydicom import uid

from medserve_images import ImageLimits, ImageReader, ImageRefused, ImageWarning, Target
from samples.dicom_files import packed, raw_dicom, words

LIMITS = ImageLimits(max_pixels=1_000_000)
SYNTAXES = [uid.ImplicitVRLittleEndian, uid.ExplicitVRLittleEndian, uid.ExplicitVRBigEndian]
LITTLE = uid.ExplicitVRLittleEndian
Numbers = NDArray[np.int64]


def read(data: bytes, shape: tuple[int, ...]) -> tuple[NDArray[np.uint8], list[ImageWarning]]:
    """Reads a file for a model whose input has exactly the file's shape."""
    color = "rgb" if len(shape) == 3 else "gray"
    target = Target(height=shape[0], width=shape[1], color=color, crop="none", resampling="bilinear")  # type: ignore[arg-type]
    pixels, warnings = ImageReader(target, LIMITS).read(data)
    return pixels.reshape(shape), warnings


def table(
    first: int, entries: Numbers, depth: int, syntax: uid.UID, *, vr: str = "US", pack: bool = False
) -> dict[str, object]:
    """An item of a Modality or VOI LUT Sequence; the value representation does not change the descriptor's bits."""
    raw = words([len(entries) % 65536, first % 65536, depth], syntax)
    data = packed(entries, syntax) if pack else words(entries, syntax)
    return {"LUTDescriptor": (vr, raw), "LUTData": ("OW", data), "ModalityLUTType": ("LO", b"US")}


def mapped(values: Numbers, first: int, entries: Numbers) -> Numbers:
    """Returns the entries of values (PS3.3 C.11.2.1.1), which are clamped to the first and last value mapped."""
    found = [int(entries[min(max(int(value) - first, 0), len(entries) - 1)]) for value in values.ravel()]
    return np.reshape(np.array(found, np.int64), values.shape)


def shades(entries: Numbers, depth: int) -> NDArray[np.float64]:
    scaled: NDArray[np.float64] = entries / (2**depth - 1) * 255
    return scaled


def ramp(depth: int, length: int = 300) -> Numbers:
    """Returns entries from 0 to the maximum of a depth, not all in order."""
    entries: Numbers = np.arange(length) * (2**depth - 1) // (length - 1)
    entries[3:9] = entries[8:2:-1]
    return entries


# Kind of the pixels, bits stored, intercept, and the first values mapped that are possible for them.
STEPS = [
    ("u1", 8, None, (0, 10)),
    ("i1", 8, None, (-128, -100, 0, 5)),
    ("u2", 12, None, (0, 1000)),
    ("i2", 12, None, (-2048, -1, 0, 700)),
    ("u2", 16, None, (0, 32767, 32768, 40000, 65300)),
    ("i2", 16, None, (-32768, -2048, 0, 32000)),
    ("u2", 12, -1024, (-1024, -900, 0, 500)),
    ("u2", 16, -1024, (-1024, 0, 20000)),
    ("i2", 16, -1024, (-32768, -2048, 100)),
    ("u2", 12, 100, (100, 4000)),
    ("i2", 12, 2048, (0, 1000)),
    ("i2", 16, 32768, (0, 32768, 40000)),
]
GRID = [
    (syntax, vr, *step[:3], first)
    for syntax, vr, step in product(SYNTAXES, ("US", "SS", "OW", "UN"), STEPS)
    for first in step[3]
    if not (vr == "UN" and syntax == uid.ExplicitVRBigEndian)
]


def pixels_around(first: int, kind: str, bits: int, intercept: int, length: int) -> Numbers:
    """Returns stored values that a table maps, and some beyond either end."""
    low = -(1 << bits - 1) if kind[0] == "i" else 0
    wanted = np.arange(first - 40, first + length + 40, 7) - intercept
    wanted = wanted[(wanted >= low) & (wanted < low + (1 << bits))]
    return wanted[None, :]


@pytest.mark.parametrize(("syntax", "vr", "kind", "bits", "intercept", "first"), GRID)
def test_the_sign_of_a_voi_luts_first_value_follows_the_input_range(
    syntax: uid.UID, vr: str, kind: str, bits: int, intercept: int | None, first: int
) -> None:
    entries = ramp(12)
    pixels = pixels_around(first, kind, bits, intercept or 0, len(entries))
    rescale = {} if intercept is None else {"RescaleSlope": "1", "RescaleIntercept": intercept}
    item = table(first, entries, 12, syntax, vr=vr)
    data = raw_dicom(pixels.astype(kind), syntax, BitsStored=bits, VOILUTSequence=[item], **rescale)
    found, warnings = read(data, pixels.shape)
    expected = shades(mapped(pixels + (intercept or 0), first, entries), 12)
    np.testing.assert_allclose(found, expected, atol=0.51)
    depth = "to 8 bits" if bits == 8 else f"from {bits} to 8 bits"
    assert [warning.message for warning in warnings] == [f"converted {depth} by its first VOI lookup table"]


@pytest.mark.parametrize(
    ("syntax", "vr", "kind", "bits", "first"), [(*case[:4], case[5]) for case in GRID if case[4] is None]
)
def test_the_sign_of_a_modality_luts_first_value_follows_the_pixels(
    syntax: uid.UID, vr: str, kind: str, bits: int, first: int
) -> None:
    entries = ramp(16)
    pixels = pixels_around(first, kind, bits, 0, len(entries))
    modality = table(first, entries, 16, syntax, vr=vr)
    window = {"WindowCenter": "32768", "WindowWidth": "65536"}
    data = raw_dicom(pixels.astype(kind), syntax, BitsStored=bits, ModalityLUTSequence=[modality], **window)
    expected = shades(mapped(pixels, first, entries), 16)
    np.testing.assert_allclose(read(data, pixels.shape)[0], expected, atol=0.51)


@pytest.mark.parametrize("syntax", SYNTAXES)
@pytest.mark.parametrize("first", [0, 100, 40000])
def test_the_output_of_a_modality_lut_is_not_negative(syntax: uid.UID, first: int) -> None:
    stored = np.arange(-100, 150)[None, :]
    modality = table(-100, np.arange(first, first + 250), 16, syntax)
    interest = table(first, ramp(8, 250), 8, syntax, pack=True)
    data = raw_dicom(stored.astype("i2"), syntax, ModalityLUTSequence=[modality], VOILUTSequence=[interest])
    np.testing.assert_allclose(read(data, stored.shape)[0], shades(ramp(8, 250)[None, :], 8), atol=0.51)


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_any_lut_returns_the_entry_of_its_value(data: st.DataObject) -> None:
    syntax = data.draw(st.sampled_from(SYNTAXES))
    bits = data.draw(st.integers(8, 16))
    signed = data.draw(st.booleans())
    slope = data.draw(st.sampled_from(["1", "-1", "2", "0.5", "-0.25", "1.5", "  1.0000000000000000 "]))
    intercept = data.draw(st.integers(-3000, 3000))
    depth = data.draw(st.integers(8, 16))
    length = data.draw(st.sampled_from([1, 2, 3, 255, 256, 257, 4096, 40000, 65536]))
    seed = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    low = -(1 << bits - 1) if signed else 0
    pixels = seed.integers(low, low + (1 << bits), (4, 9))
    values = np.array([round(value * float(slope) + intercept) for value in pixels.ravel()]).reshape(pixels.shape)
    possible = [float(slope) * value + intercept for value in (low, low + (1 << bits) - 1)]
    least, greatest = (-32768, 32767) if min(possible) < 0 else (0, 65535)
    first = int(np.clip(seed.choice(values.ravel()) - seed.integers(0, length), least, greatest))
    assume(((values >= first) & (values < first + length)).any())
    entries = seed.integers(0, 1 << depth, length)
    entries[0] = (1 << depth) - 1
    pack = depth == 8 and data.draw(st.booleans())
    item = table(first, entries, depth, syntax, vr=data.draw(st.sampled_from(["US", "SS"])), pack=pack)
    rescale = {"RescaleSlope": slope, "RescaleIntercept": intercept}
    kind = "i2" if signed else "u2"
    file = raw_dicom(pixels.astype(kind), syntax, BitsStored=bits, VOILUTSequence=[item], **rescale)
    found = read(file, pixels.shape)[0]
    np.testing.assert_allclose(found, shades(mapped(values, first, entries), depth), atol=0.51)


@pytest.mark.parametrize("name", ["voi_explicit", "voi_implicit"])
@pytest.mark.parametrize("vr", ["US", "SS"])
def test_a_lut_is_read_in_any_byte_order(name: str, vr: str) -> None:
    syntax = uid.ImplicitVRLittleEndian if name == "voi_implicit" else uid.ExplicitVRBigEndian
    reference = np.arange(784).reshape(28, 28) % 256
    entries = np.arange(4096) * 65535 // 4095
    stored = reference * 4095 // 255 - 2048
    item = table(-2048, entries, 16, syntax, vr=vr)
    found, _ = read(raw_dicom(stored.astype("i2"), syntax, VOILUTSequence=[item]), (28, 28))
    np.testing.assert_allclose(found, reference, atol=1)


@pytest.mark.parametrize("vr", ["US", "SS"])
@pytest.mark.parametrize(
    ("pixels", "kind", "intercept", "said", "other"),
    [(100, "u2", 0, 65526, -10), (20000, "i2", 16000, -29636, 35900), (40000, "u2", -1, -25636, 39900)],
)
def test_a_sign_that_leaves_a_lut_without_values_is_rejected(
    vr: str, pixels: int, kind: str, intercept: int, said: int, other: int
) -> None:
    stored = np.arange(pixels, pixels + 100)[None, :]
    rescale = {"RescaleSlope": "1", "RescaleIntercept": intercept}
    item = table(said, ramp(8), 8, LITTLE, vr=vr)
    with pytest.raises(ImageRefused) as caught:
        read(raw_dicom(stored.astype(kind), LITTLE, VOILUTSequence=[item], **rescale), stored.shape)
    assert caught.value.reason == (
        f"is a DICOM file whose LUTDescriptor maps 300 values starting at {said}, none of which the frame has; "
        f"it has some starting at {other}, but values {'can' if said < 0 else 'cannot'} be negative before this step"
    )


PIXELS = np.arange(12, dtype=np.uint8)[None, :] * 20
EIGHT = np.arange(256)
REFUSED: dict[str, tuple[dict[str, object], str]] = {
    "too many bits": (
        table(0, EIGHT, 17, LITTLE),
        "whose LUTDescriptor specifies 17 bits per entry, expected 8 to 16",
    ),
    "no bits": (table(0, EIGHT, 0, LITTLE), "whose LUTDescriptor specifies 0 bits per entry, expected 8 to 16"),
    "deeper entries": (
        table(0, EIGHT * 16, 10, LITTLE),
        "whose LUTData has a maximum of 4080, expected 10 bits as in its descriptor",
    ),
    "8-bit entries called deeper": (
        table(0, EIGHT, 16, LITTLE),
        "whose LUTDescriptor specifies 16 bits per entry, but the maximum is 255, expected 8 bits or larger entries",
    ),
    "8-bit entries in words, called deeper": (
        table(0, EIGHT, 12, LITTLE, pack=True),
        "whose LUTDescriptor specifies 12 bits per entry, but the maximum is 255, expected 8 bits or larger entries",
    ),
    "fewer entries": (
        table(0, EIGHT, 8, LITTLE) | {"LUTData": ("OW", words(EIGHT[:200], LITTLE))},
        "whose LUTData has 400 bytes, expected 512 or 256 for 256 entries of 16 or 8 bits",
    ),
    "more entries": (
        table(0, EIGHT, 8, LITTLE) | {"LUTData": ("OW", words(np.arange(300), LITTLE))},
        "whose LUTData has 600 bytes, expected 512 or 256 for 256 entries of 16 or 8 bits",
    ),
    "no entries": (table(0, EIGHT, 8, LITTLE) | {"LUTData": None}, "without LUTData"),
    "half a descriptor": (
        table(0, EIGHT, 8, LITTLE) | {"LUTDescriptor": ("US", [256, 0])},
        "whose LUTDescriptor has 2 values, expected 3",
    ),
    "no descriptor": (
        table(0, EIGHT, 8, LITTLE) | {"LUTDescriptor": None},
        "whose LUTDescriptor has 0 values, expected 3",
    ),
    "a descriptor in letters": (
        table(0, EIGHT, 8, LITTLE) | {"LUTDescriptor": ("DS", b"256\\0\\8 ")},
        "whose LUTDescriptor has an unexpected value representation, expected US, SS or OW",
    ),
}


@pytest.mark.parametrize(
    ("sequence", "name"),
    [("VOILUTSequence", name) for name in REFUSED]
    # The depth of a Modality LUT does not change values.
    + [("ModalityLUTSequence", name) for name in REFUSED if "called deeper" not in name],
)
def test_a_lut_that_contradicts_its_descriptor_is_rejected(sequence: str, name: str) -> None:
    item, reason = REFUSED[name]
    with pytest.raises(ImageRefused) as caught:
        read(raw_dicom(PIXELS, LITTLE, **{sequence: [item]}), PIXELS.shape)
    assert caught.value.reason == f"is a DICOM file {reason}"


def test_unknown_words_in_big_endian_are_rejected() -> None:
    syntax = uid.ExplicitVRBigEndian
    item = table(0, EIGHT, 8, syntax)
    item["LUTData"] = ("UN", words(EIGHT, LITTLE))
    with pytest.raises(ImageRefused, match="in big endian whose LUTData has the value representation UN, expected US"):
        read(raw_dicom(PIXELS, syntax, VOILUTSequence=[item]), PIXELS.shape)


def test_entries_that_use_part_of_their_bits_are_displayed_dark_with_a_warning() -> None:
    found, warnings = read(raw_dicom(PIXELS, LITTLE, VOILUTSequence=[table(0, EIGHT * 16, 16, LITTLE)]), PIXELS.shape)
    np.testing.assert_allclose(found, PIXELS.astype(int) * 16 / 65535 * 255, atol=0.51)
    assert warnings[0].message == (
        "its LUTDescriptor specifies 16 bits per entry, but the maximum is 4080: a wider range of shades "
        "may be intended"
    )


@pytest.mark.parametrize("vr", ["US", "SS", "OW", "OB", "UN"])
def test_entries_are_read_in_any_value_representation(vr: str) -> None:
    item = table(0, EIGHT, 8, LITTLE) | {"LUTData": (vr, words(EIGHT, LITTLE))}
    np.testing.assert_array_equal(read(raw_dicom(PIXELS, LITTLE, VOILUTSequence=[item]), PIXELS.shape)[0], PIXELS)


def test_a_sequence_of_unknown_representation_is_implicit_little_endian() -> None:
    item = table(-50, EIGHT, 8, LITTLE)
    implicit = raw_dicom(PIXELS, uid.ImplicitVRLittleEndian, VOILUTSequence=[item])
    start = implicit.index(b"\x28\x00\x10\x30") + 8
    value = implicit[start : implicit.index(b"\xe0\x7f\x10\x00")]
    pixels = (PIXELS // 2 - 50.0).astype("i1")
    for syntax in (LITTLE, uid.ExplicitVRBigEndian):
        data = raw_dicom(pixels, syntax, VOILUTSequence=("UN", value))
        np.testing.assert_array_equal(read(data, pixels.shape)[0], pixels.astype(int) + 50)


NAMES = [f"{color}PaletteColorLookupTable" for color in ("Red", "Green", "Blue")]


def palette(first: int, colors: Numbers, depth: int, syntax: uid.UID, vr: str, *, pack: bool) -> dict[str, object]:
    """Returns the elements of a palette of colors [3, entries]."""
    raw = words([colors.shape[1] % 65536, first % 65536, depth], syntax)
    data = [packed(row, syntax) if pack else words(row, syntax) for row in colors]
    return {"PhotometricInterpretation": "PALETTE COLOR"} | {
        key: value
        for name, row in zip(NAMES, data, strict=True)
        for key, value in ((f"{name}Descriptor", (vr, raw)), (f"{name}Data", ("OW", row)))
    }


@pytest.mark.parametrize("syntax", SYNTAXES)
@pytest.mark.parametrize("vr", ["US", "SS"])
@pytest.mark.parametrize(("depth", "pack"), [(8, True), (8, False), (12, False), (16, False)])
@pytest.mark.parametrize(("kind", "first"), [("u1", 0), ("i1", -128), ("u2", 5), ("i2", -300), ("u2", 40000)])
def test_the_sign_of_a_palettes_first_value_follows_the_indices(
    syntax: uid.UID, vr: str, depth: int, pack: bool, kind: str, first: int
) -> None:
    colors = np.random.default_rng(5).integers(0, 1 << depth, (3, 255))
    indices = pixels_around(first, kind, 8 * int(kind[1]), 0, 255)
    data = raw_dicom(indices.astype(kind), syntax, **palette(first, colors, depth, syntax, vr, pack=pack))
    found, _ = read(data, (*indices.shape, 3))
    expected = np.stack([mapped(indices, first, row) for row in colors], axis=-1)
    np.testing.assert_allclose(found, shades(expected, depth), atol=1)


def segmented(data: bytes, length: int, depth: int, syntax: uid.UID) -> bytes:
    """A file of one row that uses each entry of a segmented palette."""
    elements: dict[str, object] = {"PhotometricInterpretation": "PALETTE COLOR"}
    for name in NAMES:
        elements[f"{name}Descriptor"] = ("US", [length % 65536, 0, depth])
        elements[f"Segmented{name}Data"] = ("OW", data)
    return raw_dicom(np.arange(length, dtype=np.uint16)[None, :], syntax, **elements)


@pytest.mark.parametrize("syntax", SYNTAXES)
@pytest.mark.parametrize("depth", [8, 16])
def test_a_segmented_palette_is_expanded(syntax: uid.UID, depth: int) -> None:
    wide = depth == 16
    write, top, scale = (words, 65535, 257) if wide else (packed, 255, 1)
    # Three values, a linear rise, a linear fall, both again from byte 5 or 10, and one value.
    offset = [5, 0, 0, 0] if not wide else [10, 0]
    numbers = [0, 3, 10 * scale, 7 * scale, 0, 1, 5, top, 1, 2, 0, 2, 2, *offset, 0, 1, 9 * scale]
    slope = [51, 102, 153, 204, 255, 128, 0]
    expected = np.array([10, 7, 0, *slope, *slope, 9])
    found, _ = read(segmented(write(numbers, syntax), len(expected), depth, syntax), (1, len(expected), 3))
    np.testing.assert_allclose(found[0], np.repeat(expected[:, None], 3, axis=1), atol=1)


Segment = tuple[int, list[int]]
"""Yields entries and their values; for several entries with one value, the last entry."""


def segments(depth: int) -> st.SearchStrategy[list[Segment]]:
    """Generates discrete and linear segments, a discrete one first."""
    value = st.integers(0, (1 << depth) - 1)
    discrete = st.lists(value, min_size=1, max_size=20).map(lambda values: (len(values), values))
    linear = st.tuples(st.integers(2, 30), value.map(lambda each: [each]))
    return st.tuples(discrete, st.lists(discrete | linear, max_size=8)).map(lambda pair: [pair[0], *pair[1]])


@settings(max_examples=100, deadline=None)
@given(data=st.data(), depth=st.sampled_from([8, 16]), syntax=st.sampled_from(SYNTAXES))
def test_any_segments_and_their_copies_expand_to_their_lut(data: st.DataObject, depth: int, syntax: uid.UID) -> None:
    listed = data.draw(segments(depth))
    numbers: list[int] = []
    starts = []
    for count, values in listed:
        starts.append(len(numbers) * depth // 8)
        numbers += [int(count != len(values)), count, *values]
    for _ in range(data.draw(st.integers(0, 3))):
        first = data.draw(st.integers(0, len(starts) - 1))
        count = data.draw(st.integers(1, len(starts) - first))
        offset = starts[first].to_bytes(4, "little")
        numbers += [2, count, *(np.frombuffer(offset, f"<u{depth // 8}").tolist())]
        listed = [*listed, *listed[first : first + count]]
    numbers += [0, 1, (1 << depth) - 1]
    entries: list[float] = []
    for count, values in listed:
        if count == len(values):
            entries += values
        else:
            entries += np.linspace(entries[-1], values[0], count + 1)[1:].tolist()
    expected = np.array([*entries, (1 << depth) - 1]) * 255 / ((1 << depth) - 1)
    write = words if depth == 16 else packed
    found, _ = read(segmented(write(numbers, syntax), len(expected), depth, syntax), (1, len(expected), 3))
    np.testing.assert_allclose(found[0, :, 0], expected, atol=1.01)


SEGMENTS: dict[str, tuple[list[int], str]] = {
    "a first slope": ([1, 256, 9], "begins with a linear segment"),
    "an unknown type": ([0, 1, 5, 3, 255, 9], "has a segment of type 3, expected 0, 1 or 2"),
    "no entries": ([0, 0], "has a segment of 0 entries, with 0 values"),
    "fewer values": ([0, 256, 1, 2, 3], "has a segment of 256 entries, with 3 values"),
    "fewer entries": ([0, 2, 1, 2, 1, 100, 9], "has 102 entries, expected 256"),
    "more entries": ([0, 2, 1, 2, 1, 255, 9], "has more than the 256 entries"),
    "more segments": ([0, 1, 1, 1, 255, 9, 0, 1, 9], "has more than the 256 entries"),
    "a copy beyond the end": ([0, 1, 1, 2, 1, 1000, 0], "is truncated"),
    "a copy of itself": ([0, 1, 1, 2, 1, 6, 0], "has a segment of type 2, expected 0, 1 or 2, and no nested 2"),
    "a copy of half a word": ([0, 1, 1, 2, 1, 1, 0], "has an indirect segment of 1 segments from byte 1"),
    "a copy of nothing": ([0, 1, 1, 2, 0, 0, 0], "has an indirect segment of 0 segments from byte 0"),
    "copies without end": ([0, 1, 1, *[2, 65535, 0, 0] * 10_000], "has a segment of type 2"),
    "copies of much": ([0, 1, 1, 1, 200, 9, 2, 2, 0, 0, 2, 2, 0, 0], "has more than the 256 entries"),
}


@pytest.mark.parametrize("name", SEGMENTS)
def test_nonstandard_segments_are_rejected(name: str) -> None:
    numbers, reason = SEGMENTS[name]
    with pytest.raises(ImageRefused) as caught:
        read(segmented(words(numbers, LITTLE), 256, 16, LITTLE), (1, 256, 3))
    assert caught.value.reason.startswith("is a DICOM file whose SegmentedRedPaletteColorLookupTableData ")
    assert reason in caught.value.reason
