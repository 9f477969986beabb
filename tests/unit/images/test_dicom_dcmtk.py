"""Comparison with DCMTK's dcm2pnm, the reference where the standard is ambiguous.

It applies a window or VOI LUT only on request, and truncates rescaled values to integers before applying either (the
standard does not): rescaled files here have integer values.
"""

import subprocess
from collections.abc import Mapping
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from pydicom import uid

from medserve_images import ImageLimits, ImageReader, Target
from programs import program
from samples.dicom_files import packed, raw_dicom, words

pytestmark = pytest.mark.process

LITTLE = uid.ExplicitVRLittleEndian
SYNTAXES = [uid.ImplicitVRLittleEndian, LITTLE, uid.ExplicitVRBigEndian]
WINDOW, VOI_LUT, LEAST_AND_GREATEST = ("--use-window", "1"), ("--use-voi-lut", "1"), ("--min-max-window",)
Elements = Mapping[str, object]


def dcmtk(path: Path, *options: str) -> NDArray[np.int64]:
    """Renders a file with DCMTK; dcmj2pnm also decompresses JPEG."""
    shown = path.with_suffix(".pnm")
    command = ["dcmj2pnm", "--write-raw-pnm", "--no-overlays", *options, str(path), str(shown)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "cannot select" not in done.stderr
    with Image.open(shown) as image:
        return np.asarray(image).astype(np.int64)


def ours(path: Path, shape: tuple[int, ...]) -> NDArray[np.int64]:
    target = Target(
        height=shape[0],
        width=shape[1],
        color="rgb" if len(shape) == 3 else "gray",
        crop="none",
        resampling="bilinear",
    )
    return ImageReader(target, ImageLimits()).read(path.read_bytes())[0].reshape(shape).astype(np.int64)


def assert_same(path: Path, data: bytes, *options: str, atol: int = 1) -> None:
    path.write_bytes(data)
    theirs = dcmtk(path, *options)
    assert theirs.std() > 1
    np.testing.assert_allclose(ours(path, theirs.shape), theirs, atol=atol)


@pytest.fixture(autouse=True)
def dcmtk_is_installed() -> None:
    program("dcm2pnm", "dcmtk")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "file.dcm"


def item(first: int, entries: NDArray[np.int64], depth: int, syntax: uid.UID, vr: str) -> dict[str, object]:
    raw = words([len(entries) % 65536, first % 65536, depth], syntax)
    return {"LUTDescriptor": (vr, raw), "LUTData": ("OW", words(entries, syntax)), "ModalityLUTType": ("LO", b"US")}


def stored(bits: int, *, signed: bool) -> NDArray[np.int64]:
    """Returns varied values of `bits` bits."""
    low = -(1 << bits - 1) if signed else 0
    return np.linspace(low, low + (1 << bits) - 1, 96).astype(np.int64).reshape(8, 12)


GRID = list(product(SYNTAXES, ("US", "SS"), (8, 10, 12, 16), (False, True), (None, 0, -1024, 2048)))


@pytest.mark.parametrize(("syntax", "vr", "bits", "signed", "intercept"), GRID)
def test_a_voi_lut_matches_dcmtk(
    path: Path, syntax: uid.UID, vr: str, bits: int, signed: bool, intercept: int | None
) -> None:
    pixels = stored(bits, signed=signed)
    values = pixels + (intercept or 0)
    least, greatest = (-32768, 32767) if values.min() < 0 else (0, 65535)
    first = int(np.clip(values.min() + 30, least, greatest))
    entries = np.linspace(0, 4095, min(1 << bits, 60_000)).astype(np.int64)[::-1]
    rescale = {} if intercept is None else {"RescaleSlope": "1", "RescaleIntercept": intercept}
    data = raw_dicom(
        pixels.astype(f"{'i' if signed else 'u'}2"),
        syntax,
        BitsStored=bits,
        VOILUTSequence=[item(first, entries, 12, syntax, vr)],
        **rescale,
    )
    assert_same(path, data, *VOI_LUT)


@pytest.mark.parametrize(("syntax", "vr", "bits", "signed"), sorted({case[:4] for case in GRID}))
def test_a_modality_lut_matches_dcmtk(path: Path, syntax: uid.UID, vr: str, bits: int, signed: bool) -> None:
    pixels = stored(bits, signed=signed)
    entries = np.linspace(100, 3000, min(1 << bits, 60_000)).astype(np.int64)
    modality = item(int(pixels.min()) + 5, entries, 16, syntax, vr)
    elements = {"ModalityLUTSequence": [modality], "RescaleSlope": "2", "RescaleIntercept": "7"}
    data = raw_dicom(
        pixels.astype(f"{'i' if signed else 'u'}2"),
        syntax,
        BitsStored=bits,
        WindowCenter="1500",
        WindowWidth="3000",
        VOILUTSequence=[item(200, np.arange(4096)[::-1], 12, syntax, vr)],
        **elements,
    )
    assert_same(path, data, *VOI_LUT)
    assert_same(
        path,
        raw_dicom(
            pixels.astype(f"{'i' if signed else 'u'}2"),
            syntax,
            BitsStored=bits,
            WindowCenter="1500",
            WindowWidth="3000",
            **elements,
        ),
        *WINDOW,
    )


@pytest.mark.parametrize(("syntax", "signed"), [*product(SYNTAXES, (False, True))])
@pytest.mark.parametrize(("bits", "high"), [(8, 7), (8, 15), (9, 10), (10, 9), (12, 11), (12, 15), (15, 15), (16, 15)])
def test_bits_stored_at_any_position_match_dcmtk(
    path: Path, syntax: uid.UID, signed: bool, bits: int, high: int
) -> None:
    random = np.random.default_rng(6)
    values = stored(bits, signed=signed)
    shift = high + 1 - bits
    mask = ((1 << bits) - 1) << shift
    pixels = (random.integers(0, 65536, values.shape) & ~mask) | (values << shift & mask)
    data = raw_dicom(
        pixels.astype("u2"),
        syntax,
        BitsStored=bits,
        HighBit=high,
        PixelRepresentation=int(signed),
        WindowCenter=int(values.mean()) + 1,
        WindowWidth=(1 << bits) // 2,
    )
    assert_same(path, data, *WINDOW)


@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
@pytest.mark.parametrize(
    "elements", [{}, *({"PresentationLUTShape": shape} for shape in ("IDENTITY", "INVERSE", "LIN OD"))]
)
@pytest.mark.parametrize("options", [(), WINDOW])
def test_polarity_matches_dcmtk(path: Path, photometric: str, elements: Elements, options: tuple[str, ...]) -> None:
    window = {"WindowCenter": "100", "WindowWidth": "150"} if options else {}
    pixels = stored(8, signed=False).astype("u1")
    assert_same(path, raw_dicom(pixels, LITTLE, PhotometricInterpretation=photometric, **elements, **window), *options)


@pytest.mark.parametrize(
    "elements",
    [
        {"WindowCenter": "100", "WindowWidth": "1"},
        {"WindowCenter": "100\\7", "WindowWidth": "50\\90"},
        {"WindowCenter": " 100.5 ", "WindowWidth": "+5.0E1"},
        {"WindowCenter": "100.0000000000000000000", "WindowWidth": "50"},
        {"WindowCenter": "-20", "WindowWidth": "400"},
        {"WindowCenter": "100", "WindowWidth": "50", "VOILUTFunction": "SIGMOID"},
        {"WindowCenter": "100", "WindowWidth": "50", "RescaleSlope": "2", "RescaleIntercept": "-60"},
        {"WindowCenter": "-100", "WindowWidth": "250", "RescaleSlope": "-1", "RescaleIntercept": "0"},
        {"WindowCenter": "100", "WindowWidth": "50", "RescaleSlope": "1"},
        {"WindowCenter": "100", "WindowWidth": "50", "RescaleIntercept": "0"},
    ],
)
def test_a_window_matches_dcmtk(path: Path, elements: Elements) -> None:
    assert_same(path, raw_dicom(np.arange(256, dtype="u1").reshape(16, 16), LITTLE, **elements), *WINDOW)


@pytest.mark.parametrize(("bits", "signed"), [*product((8, 10, 12, 16), (False, True))])
def test_pixels_without_window_and_lut_match_dcmtk(path: Path, bits: int, signed: bool) -> None:
    pixels = stored(bits, signed=signed)[1:-1] // 3
    data = raw_dicom(pixels.astype(f"{'i' if signed else 'u'}2"), LITTLE, BitsStored=bits)
    assert_same(path, data, *(LEAST_AND_GREATEST if bits > 8 or signed else ()))


NAMES = [f"{color}PaletteColorLookupTable" for color in ("Red", "Green", "Blue")]


@pytest.mark.parametrize(("syntax", "vr"), [*product(SYNTAXES, ("US", "SS"))])
@pytest.mark.parametrize(("depth", "pack"), [(8, True), (8, False), (12, False), (16, False)])
@pytest.mark.parametrize(("kind", "first"), [("u1", 0), ("i1", -128), ("u2", 5), ("i2", -300), ("u2", 40000)])
def test_a_palette_matches_dcmtk(
    path: Path, syntax: uid.UID, vr: str, depth: int, pack: bool, kind: str, first: int
) -> None:
    colors = np.random.default_rng(5).integers(0, 1 << depth, (3, 200))
    elements: dict[str, object] = {"PhotometricInterpretation": "PALETTE COLOR"}
    for name, row in zip(NAMES, colors, strict=True):
        elements[f"{name}Descriptor"] = (vr, words([200, first % 65536, depth], syntax))
        elements[f"{name}Data"] = ("OW", packed(row, syntax) if pack else words(row, syntax))
    low = -(1 << 8 * int(kind[1]) - 1) if kind[0] == "i" else 0
    indices = np.arange(max(first - 20, low), first + 220)[: 12 * 18].reshape(12, -1)
    assert_same(path, raw_dicom(indices.astype(kind), syntax, **elements))


@pytest.mark.parametrize(("syntax", "planar"), [*product(SYNTAXES, (0, 1))])
@pytest.mark.parametrize("photometric", ["RGB", "YBR_FULL", "YBR_FULL_422"])
def test_colors(path: Path, syntax: uid.UID, planar: int, photometric: str) -> None:
    colors = np.random.default_rng(7).integers(0, 256, (8, 10, 3), dtype=np.uint8)
    data = (colors.transpose(2, 0, 1) if planar else colors).tobytes()
    if photometric == "YBR_FULL_422":
        planar = 0
        pairs = colors.reshape(8, 5, 2, 3)
        data = np.stack([pairs[..., 0, 0], pairs[..., 1, 0], pairs[..., 0, 1], pairs[..., 0, 2]], axis=-1).tobytes()
    elements = {"PhotometricInterpretation": photometric, "PlanarConfiguration": planar}
    file = raw_dicom(colors, syntax, PixelData=("OB", data), **elements)
    assert_same(path, file, atol=2 if photometric != "RGB" else 0)  # DCMTK's conversion is off by up to 2


@pytest.mark.parametrize("bits", [12, 16])
@pytest.mark.parametrize("syntax", SYNTAXES)
def test_deep_colors(path: Path, syntax: uid.UID, bits: int) -> None:
    colors = np.random.default_rng(8).integers(0, 1 << bits, (8, 10, 3)).astype(np.uint16)
    assert_same(path, raw_dicom(colors, syntax, BitsStored=bits))


@pytest.mark.parametrize(
    "encoder", [("dcmcrle",), ("dcmcjpeg", "--encode-lossless-sv1"), ("dcmcjpeg", "--encode-baseline")]
)
@pytest.mark.parametrize(("bits", "signed"), [*product((8, 12, 16), (False, True))])
def test_compressed_gray(path: Path, encoder: tuple[str, ...], bits: int, signed: bool) -> None:
    if encoder[-1] == "--encode-baseline" and bits > 8:
        bits = 8
    pixels = stored(bits, signed=signed).astype(f"{'i' if signed else 'u'}{1 if bits == 8 else 2}")
    window = {"WindowCenter": int(pixels.mean()), "WindowWidth": 1 << bits}
    path.write_bytes(
        raw_dicom(
            pixels,
            LITTLE,
            BitsStored=bits,
            SOPClassUID=uid.SecondaryCaptureImageStorage,
            SOPInstanceUID="1.2.3",
            **window,
        )
    )
    compressed = path.with_name("compressed.dcm")
    subprocess.run([*encoder, str(path), str(compressed)], check=True, capture_output=True)
    theirs = dcmtk(compressed, *WINDOW)
    np.testing.assert_allclose(ours(compressed, theirs.shape), theirs, atol=1)


@pytest.mark.parametrize(
    "encoder",
    [
        ("dcmcrle",),
        ("dcmcjpeg", "--encode-lossless-sv1"),
        ("dcmcjpeg", "--encode-baseline"),
        ("dcmcjpeg", "--encode-baseline", "--sample-422"),
    ],
)
@pytest.mark.parametrize("photometric", ["RGB", "YBR_FULL"])
def test_compressed_colors(path: Path, encoder: tuple[str, ...], photometric: str) -> None:
    y, x = np.mgrid[0:16, 0:24]
    colors = np.stack([y * 15, x * 10, 255 - y * 10], axis=-1).astype(np.uint8)
    elements = {
        "PhotometricInterpretation": photometric,
        "SOPClassUID": uid.SecondaryCaptureImageStorage,
        "SOPInstanceUID": "1.2.3",
    }
    path.write_bytes(raw_dicom(colors, LITTLE, **elements))
    compressed = path.with_name("compressed.dcm")
    subprocess.run([*encoder, str(path), str(compressed)], check=True, capture_output=True)
    theirs = dcmtk(compressed)
    np.testing.assert_allclose(ours(compressed, theirs.shape), theirs, atol=2)
