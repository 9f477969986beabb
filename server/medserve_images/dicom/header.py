"""Reads the required elements and the pixel layout of an untrusted DICOM file, with bounded resources."""

import logging
import re
from collections.abc import Iterator
from dataclasses import dataclass

from pydicom import config, uid
from pydicom.datadict import tag_for_keyword
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.filereader import read_dataset

from medserve_images.dicom.elements import BoundedFile, decimal, integer, item_of, refusal, text

# pydicom's log messages quote values of the file.
logging.getLogger("pydicom").setLevel(logging.CRITICAL + 1)
config.settings.reading_validation_mode = config.IGNORE

HEADER_START = 132
MAX_FRAMES = 100_000

NATIVE = (uid.ImplicitVRLittleEndian, uid.ExplicitVRLittleEndian, uid.ExplicitVRBigEndian)
JPEG = (uid.JPEGBaseline8Bit, uid.JPEGExtended12Bit)
JPEG_LOSSLESS = (uid.JPEGLosslessSV1, uid.JPEGLossless)
JPEG_2000 = (uid.JPEG2000Lossless, uid.JPEG2000, uid.HTJ2KLossless, uid.HTJ2KLosslessRPCL, uid.HTJ2K)
SYNTAXES = (*NATIVE, uid.RLELossless, *JPEG_LOSSLESS, *JPEG, *JPEG_2000)
"""The supported transfer syntaxes. JPEG-LS is not supported: the only decoder without GPL code (pyjpegls 1.5.1, CharLS
2.4) blocks the interpreter for 16 s on a corrupt scan of 400 bytes."""

PHOTOMETRIC = (
    "MONOCHROME1",
    "MONOCHROME2",
    "PALETTE COLOR",
    "RGB",
    "YBR_FULL",
    "YBR_FULL_422",
    "YBR_PARTIAL_422",
    "YBR_PARTIAL_420",
    "YBR_ICT",
    "YBR_RCT",
    "XYB",
    "HSV",
    "ARGB",
    "CMYK",
)
"""Values defined by the standard, including retired ones (PS3.3 C.7.6.3.1.2); other values are not quoted in errors."""

# The functional groups of an enhanced file that affect the interpretation of its pixels.
GROUPS = ("PixelValueTransformationSequence", "FrameVOILUTSequence")
PALETTE = tuple(
    keyword
    for color in ("Red", "Green", "Blue")
    for keyword in (
        f"{color}PaletteColorLookupTableDescriptor",
        f"{color}PaletteColorLookupTableData",
        f"Segmented{color}PaletteColorLookupTableData",
    )
)
KEYWORDS = (
    "SOPInstanceUID",
    "SamplesPerPixel",
    "PhotometricInterpretation",
    "PlanarConfiguration",
    "NumberOfFrames",
    "Rows",
    "Columns",
    "BitsAllocated",
    "BitsStored",
    "HighBit",
    "PixelRepresentation",
    "PixelPaddingValue",
    "PixelPaddingRangeLimit",
    "WindowCenter",
    "WindowWidth",
    "VOILUTFunction",
    "RescaleIntercept",
    "RescaleSlope",
    "ModalityLUTSequence",
    "VOILUTSequence",
    "PresentationLUTSequence",
    "PresentationLUTShape",
    "PixelSpacing",
    "ImagerPixelSpacing",
    "SequenceOfUltrasoundRegions",
    *PALETTE,
    "SharedFunctionalGroupsSequence",
    "PerFrameFunctionalGroupsSequence",
    "FloatPixelData",
    "DoubleFloatPixelData",
    "PixelData",
)
TAGS = [tag for keyword in KEYWORDS if (tag := tag_for_keyword(keyword)) is not None]
PIXEL_DATA = 0x7FE00010
INSTANCE_UID = re.compile(rb"([0-9.]{1,64})[\0 ]*")


@dataclass(frozen=True, slots=True)
class Layout:
    """The validated pixel layout of a file."""

    syntax: uid.UID
    rows: int
    columns: int
    frames: int
    samples: int
    photometric: str
    allocated: int
    """Bits allocated per sample, 8 or 16."""
    stored: int
    """Bits stored per sample."""
    high: int
    """Most significant stored bit."""
    signed: bool
    planar: int


def read_elements(data: bytes) -> tuple[Dataset, uid.UID]:
    """Reads the required elements and the transfer syntax; nothing is decompressed.

    Raises:
        ImageRefused: The transfer syntax is not supported, or there is no pixel data.
        TooComplex: Parsing would take too long.
    """
    file = BoundedFile(data)
    try:
        syntax = _syntax(file)
        if syntax not in SYNTAXES:
            name = syntax.name if syntax.is_transfer_syntax else "a transfer syntax that is not in the standard"
            names = ", ".join(known.name for known in SYNTAXES)
            raise refusal(f"in {name}, expected one of {names}")
        dataset = read_dataset(
            file,
            is_implicit_VR=syntax.is_implicit_VR,
            is_little_endian=syntax.is_little_endian,
            specific_tags=list(TAGS),
            stop_when=lambda tag, *_: tag > PIXEL_DATA,
        )
    finally:
        file.check()
    if "PixelData" not in dataset:
        for keyword in ("FloatPixelData", "DoubleFloatPixelData"):
            if keyword in dataset:
                raise refusal(f"whose pixels are in {keyword}, expected whole numbers in PixelData")
        raise refusal("without Pixel Data; expected an image")
    return dataset, syntax


def read_sop_instance_uid(dataset: Dataset) -> str:
    """Reads the SOP Instance UID; "" if it is missing or does not consist of at most 64 digits and dots."""
    element: object = dataset.get_item("SOPInstanceUID") if "SOPInstanceUID" in dataset else None
    value = element.value if isinstance(element, RawDataElement) else None
    match = INSTANCE_UID.fullmatch(value or b"")
    return match[1].decode("ascii") if match else ""


def _syntax(file: BoundedFile) -> uid.UID:
    """Reads the file meta information and returns the transfer syntax."""
    file.seek(HEADER_START)
    meta = read_dataset(file, is_implicit_VR=False, is_little_endian=True, stop_when=lambda tag, *_: tag.group != 2)
    return uid.UID(meta.TransferSyntaxUID)


def read_layout(dataset: Dataset, syntax: uid.UID) -> Layout:
    """Reads and validates the pixel layout.

    Raises:
        ImageRefused: An element is missing, or its value is not supported.
        TooComplex: An element is too large.
    """

    def number(keyword: str, expected: range, default: int | None = None) -> int:
        value = decimal(dataset, keyword) if keyword == "NumberOfFrames" else integer(dataset, keyword)
        if value is None:
            value = default
        if value is None:
            raise refusal(f"without a valid {keyword}")
        if value not in expected:
            separator = " to " if expected.step == 1 and len(expected) > 2 else " or "
            choices = separator.join(map(str, sorted({expected[0], expected[-1]})))
            raise refusal(f"whose {keyword} is {value:.10g}, expected {choices}")
        return int(value)

    samples = number("SamplesPerPixel", range(1, 4, 2))
    allocated = number("BitsAllocated", range(8, 17, 8))
    photometric = _photometric(dataset, samples, syntax)
    converted = photometric.startswith("YBR")  # with a formula for 8 bits
    min_stored = 1 if samples == 1 else 8
    stored = number("BitsStored", range(min_stored, (8 if converted else allocated) + 1))
    planar = number("PlanarConfiguration", range(2), 0)
    if planar and photometric == "YBR_FULL_422" and not syntax.is_encapsulated:
        raise refusal("whose PlanarConfiguration is 1, expected 0 for uncompressed YBR_FULL_422")
    return Layout(
        syntax=syntax,
        rows=number("Rows", range(1, 65536)),
        columns=number("Columns", range(1, 65536)),
        frames=number("NumberOfFrames", range(1, MAX_FRAMES + 1), 1),
        samples=samples,
        photometric=photometric,
        allocated=allocated,
        stored=stored,
        high=number("HighBit", range(stored - 1, allocated), stored - 1),
        signed=bool(number("PixelRepresentation", range(2 if samples == 1 else 1))),
        planar=planar,
    )


def _photometric(dataset: Dataset, samples: int, syntax: uid.UID) -> str:
    if samples == 1:
        known = ["MONOCHROME1", "MONOCHROME2", "PALETTE COLOR"]
    else:
        known = ["RGB", "YBR_FULL"]
        if syntax in (*NATIVE, *JPEG):
            known.append("YBR_FULL_422")
        if syntax in JPEG_2000:
            known += ["YBR_ICT", "YBR_RCT"]
    value = text(dataset, "PhotometricInterpretation")
    if value not in known:
        shown = value if value in PHOTOMETRIC else "not defined by the standard" if value else "missing"
        raise refusal(
            f"whose PhotometricInterpretation is {shown}, expected {', '.join(known)} "
            f"for SamplesPerPixel {samples} and {syntax.name}"
        )
    return value


def apply_functional_groups(dataset: Dataset, frame: int) -> None:
    """Copies the elements of the functional groups that apply to a frame (PS3.3 C.7.6.16) to the top-level dataset.

    Raises:
        ImageRefused: There are per-frame functional groups, but none for this frame.
        TooComplex: The groups are too large.
    """
    for keyword in GROUPS:
        for group in functional_groups(dataset, frame, keyword):
            dataset.update(group)


def functional_groups(dataset: Dataset, frame: int, keyword: str) -> Iterator[Dataset]:
    """Yields the functional groups of this name that apply to a frame: that of all frames, then its own.

    Raises:
        ImageRefused: There are per-frame functional groups, but none for this frame.
        TooComplex: The groups are too large.
    """
    for groups in (
        item_of(dataset, "SharedFunctionalGroupsSequence"),
        item_of(dataset, "PerFrameFunctionalGroupsSequence", frame),
    ):
        if groups is not None and (group := item_of(groups, keyword)) is not None:
            yield group
