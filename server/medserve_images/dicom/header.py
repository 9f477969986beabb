"""The elements of a DICOM file that are needed, read from hostile bytes within bounds."""

import io
import logging
from dataclasses import dataclass
from typing import Any, cast

from pydicom import config, uid
from pydicom.charset import default_encoding
from pydicom.datadict import tag_for_keyword
from pydicom.dataelem import DataElement, RawDataElement
from pydicom.dataset import Dataset
from pydicom.filereader import read_dataset, read_sequence
from pydicom.sequence import Sequence

from medserve_images.dicom.codecs import PLUGIN
from medserve_images.errors import ImageRefused

# Its messages quote values of the file.
logging.getLogger("pydicom").setLevel(logging.CRITICAL + 1)
config.settings.reading_validation_mode = config.IGNORE

HEADER_START = 132
# A parser is stopped here: about a second of work. An enhanced CT with 1,000 frames needs a tenth of it.
MAX_READS = 200_000
MAX_FRAMES = 100_000
MAX_VALUE_BYTES = 2 * 65536  # a lookup table of 65,536 words; nothing else that is read is larger
MAX_SEQUENCE_BYTES = 4 * 1024 * 1024

# What is read, and the plugin of pydicom that decodes it. JPEG-LS is not: the one decoder without code under GPL
# (pyjpegls 1.5.1, CharLS 2.4) holds the interpreter for 16 s on a damaged scan of 400 bytes.
SYNTAXES = {
    uid.ImplicitVRLittleEndian: "",
    uid.ExplicitVRLittleEndian: "",
    uid.ExplicitVRBigEndian: "",
    uid.RLELossless: PLUGIN,
    uid.JPEGLosslessSV1: PLUGIN,
    uid.JPEGLossless: PLUGIN,
    uid.JPEGBaseline8Bit: "pillow",
    uid.JPEG2000Lossless: "pillow",
    uid.JPEG2000: "pillow",
}
# The functional groups of an enhanced file that change what its pixels mean.
GROUPS = ("PixelValueTransformationSequence", "FrameVOILUTSequence")
KEYWORDS = (
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
    "RedPaletteColorLookupTableDescriptor",
    "GreenPaletteColorLookupTableDescriptor",
    "BluePaletteColorLookupTableDescriptor",
    "RedPaletteColorLookupTableData",
    "GreenPaletteColorLookupTableData",
    "BluePaletteColorLookupTableData",
    "SharedFunctionalGroupsSequence",
    "PerFrameFunctionalGroupsSequence",
    "PixelData",
)
TAGS = [tag for keyword in KEYWORDS if (tag := tag_for_keyword(keyword)) is not None]
PIXEL_DATA = 0x7FE00010


class TooComplex(Exception):
    """A file that keeps its parser busy."""


class BoundedFile(io.BytesIO):
    """Bytes that may be read so many times: the time of a parser is bounded, whatever the bytes say."""

    def __init__(self, data: bytes) -> None:
        super().__init__(data)
        self._left = MAX_READS

    def read(self, size: int | None = -1) -> bytes:
        """Reads like any file, until it has been asked too often."""
        self._left -= 1
        if self._left < 0:
            raise TooComplex
        return super().read(size)

    def check(self) -> None:
        """Raises what a parser may have swallowed.

        Raises:
            TooComplex: the bytes were read too often.
        """
        if self._left < 0:
            raise TooComplex


@dataclass(frozen=True, slots=True)
class Layout:
    """How a file stores its pixels, checked."""

    syntax: uid.UID
    rows: int
    columns: int
    frames: int
    samples: int
    photometric: str
    allocated: int
    """Bits of a pixel in the file, 8 or 16."""
    stored: int
    """Bits of them that count."""
    high: int
    """The highest bit that counts."""
    signed: bool
    planar: int


def read_elements(data: bytes) -> tuple[Dataset, uid.UID]:
    """Reads the elements that are needed and the transfer syntax; nothing is decompressed.

    Raises:
        ImageRefused: the transfer syntax is not read here, or there are no pixels.
        TooComplex: reading takes too long.
    """
    file = BoundedFile(data)
    file.seek(HEADER_START)
    try:
        meta = read_dataset(file, is_implicit_VR=False, is_little_endian=True, stop_when=lambda tag, *_: tag.group != 2)
        syntax = uid.UID(meta.TransferSyntaxUID)
        if syntax not in SYNTAXES:
            name = syntax.name if syntax.is_transfer_syntax else "a transfer syntax that is not in the standard"
            names = ", ".join(known.name for known in SYNTAXES)
            raise ImageRefused(f"is a DICOM file in {name}, expected one of {names}")
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
        raise ImageRefused("is a DICOM file without Pixel Data; expected one with a picture")
    return dataset, syntax


def read_layout(dataset: Dataset, syntax: uid.UID) -> Layout:
    """Checks how the pixels are stored.

    Raises:
        ImageRefused: an element is missing, or says what is not read.
    """

    def number(keyword: str, expected: range, default: int | None = None) -> int:
        value = value_of(dataset, keyword)
        if value is None:
            value = default
        if not isinstance(value, int):
            raise ImageRefused(f"is a DICOM file without a valid {keyword}")
        if value not in expected:
            choices = f"{expected[0]} to {expected[-1]}" if expected.step == 1 else f"{expected[0]} or {expected[-1]}"
            raise ImageRefused(f"is a DICOM file whose {keyword} is {int(value)}, expected {choices}")
        return int(value)

    samples = number("SamplesPerPixel", range(1, 4, 2))
    allocated = number("BitsAllocated", range(8, 17, 8))
    photometric = _photometric(dataset, samples)
    converted = photometric.startswith("YBR")  # by a formula for 8 bits
    least = 1 if samples == 1 else 8
    stored = number("BitsStored", range(least, (8 if converted else allocated) + 1))
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
        planar=number("PlanarConfiguration", range(2), 0),
    )


def _photometric(dataset: Dataset, samples: int) -> str:
    known = (
        ("MONOCHROME1", "MONOCHROME2", "PALETTE COLOR")
        if samples == 1
        else ("RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT")
    )
    value = value_of(dataset, "PhotometricInterpretation")
    if value not in known:
        expected = ", ".join(known)
        raise ImageRefused(f"is a DICOM file whose PhotometricInterpretation is none of {expected}")
    return str(value)


def value_of(dataset: Dataset, keyword: str) -> Any:  # noqa: ANN401 - of the type that the file says
    """The value of an element; None where it is missing or empty.

    Raises:
        TooComplex: it is so large that parsing it takes long.
    """
    if keyword not in dataset:
        return None
    raw = dataset.get_item(keyword).value
    if isinstance(raw, bytes) and len(raw) > MAX_VALUE_BYTES:
        raise TooComplex
    return dataset[keyword].value


def item_of(dataset: Dataset, keyword: str, index: int) -> Dataset | None:
    """An item of a sequence; None where there is no such sequence, or nothing in it.

    Raises:
        IndexError: it has fewer items.
        TooComplex: it is so large that parsing it takes long.
        TypeError: it is no sequence.
    """
    if keyword not in dataset:
        return None
    element = cast("DataElement | RawDataElement", dataset.get_item(keyword))
    sequence = element.value
    if isinstance(element, RawDataElement):  # not parsed yet
        data = element.value or b""
        if len(data) > MAX_SEQUENCE_BYTES:
            raise TooComplex
        file = BoundedFile(data)
        try:
            sequence = read_sequence(
                file, element.is_implicit_VR, element.is_little_endian, len(data), default_encoding
            )
        finally:
            file.check()
    if not isinstance(sequence, Sequence):
        raise TypeError(keyword)
    return sequence[index] if len(sequence) else None


def apply_functional_groups(dataset: Dataset, frame: int) -> None:
    """Puts the elements of an enhanced file's functional groups that hold for a frame (PS3.3 C.7.6.16) at the top."""
    for groups in (
        item_of(dataset, "SharedFunctionalGroupsSequence", 0),
        item_of(dataset, "PerFrameFunctionalGroupsSequence", frame),
    ):
        for keyword in GROUPS:
            if groups is not None and (group := item_of(groups, keyword, 0)) is not None:
                dataset.update(group)
