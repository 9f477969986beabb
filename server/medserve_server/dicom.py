"""DICOM files in, 8-bit pictures out: reads the few elements that are needed, bounds them, and decodes one frame.

Nothing of a file but numbers that describe its pixels gets into an error; pydicom's own messages, which quote
elements, get nowhere.
"""

import io
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydicom import config, uid
from pydicom.datadict import tag_for_keyword
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate, get_frame
from pydicom.filereader import read_dataset
from pydicom.pixels import get_decoder
from pydicom.sequence import Sequence

from medserve_server.dicom_codecs import PLUGIN, add_plugins, jpeg_header
from medserve_server.dicom_display import color_from_palette, gray
from medserve_server.errors import InvalidInput, ServingError

# They quote values of the file.
logging.getLogger("pydicom").setLevel(logging.CRITICAL + 1)
config.settings.reading_validation_mode = config.IGNORE
add_plugins()

HEADER_START = 132
# A parser is stopped here: about a second of work. An enhanced CT with 1,000 frames needs a tenth of it.
MAX_READS = 300_000
MAX_FRAMES = 100_000
MAX_ELEMENT_BYTES = 4 * 1024 * 1024  # of any element but the pixels

# What is read, and the plugin of pydicom that decodes it.
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
    uid.JPEGLSLossless: "pyjpegls",
    uid.JPEGLSNearLossless: "pyjpegls",
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


def read_dicom(data: bytes, frame: int, max_pixels: int, field: str) -> tuple[Image.Image, str | None]:
    """Decodes one frame to a picture of mode L or RGB, as a viewer would show it first.

    Args:
        data: a whole file, with preamble.
        frame: from 0.
        max_pixels: of the frame, checked before anything is decoded.
        field: of the request, e.g. `images[3]`; named by errors.

    Returns:
        The picture, and how its values were brought to 8 bits; None where they had 8.

    Raises:
        InvalidInput: the file is broken, too large, or of a kind without one clear reading.
    """
    encoded = f"{field}.encoded"
    with _refusing(encoded, f"is a broken DICOM file ({len(data)} bytes): its elements can't be read"):
        dataset, syntax = _read_elements(data, encoded)
        layout = _read_layout(dataset, syntax, encoded)
    if layout.rows * layout.columns > max_pixels:
        raise InvalidInput.of(
            encoded,
            f"is {layout.columns} x {layout.rows} = {layout.rows * layout.columns / 1e6:.1f} megapixels, "
            f"at most {max_pixels / 1e6:g} are accepted; send it smaller",
        )
    if frame >= layout.frames:
        raise InvalidInput.of(f"{field}.frame", f"is {frame}, expected 0 to {layout.frames - 1}")
    name = syntax.name
    with _refusing(encoded, f"is a DICOM file whose pixels can't be decoded ({name}): they are broken or too few"):
        array, photometric = _decode(dataset, layout, frame, encoded)
    with _refusing(encoded, "is a DICOM file with a broken window, rescale or lookup table"):
        return _show(array, photometric, _of_frame(dataset, frame), layout, encoded)


@contextmanager
def _refusing(field: str, problem: str) -> Iterator[None]:
    """Turns whatever a parser of hostile bytes raises into InvalidInput, without its text, which may quote the file."""
    try:
        yield
    except ServingError:
        raise
    except TooComplex:
        raise InvalidInput.of(
            field, "is a DICOM file of too many elements or fragments; send the frame alone"
        ) from None
    except Exception as error:  # noqa: BLE001 - pydicom and its decoders raise anything on broken files
        raise InvalidInput.of(field, f"{problem} ({type(error).__name__})") from None


def _read_elements(data: bytes, field: str) -> tuple[Dataset, uid.UID]:
    """Reads the elements that are needed and the transfer syntax; nothing is decompressed."""
    file = BoundedFile(data)
    file.seek(HEADER_START)
    meta = read_dataset(file, is_implicit_VR=False, is_little_endian=True, stop_when=lambda tag, *_: tag.group != 2)
    syntax = uid.UID(meta.TransferSyntaxUID)
    if syntax not in SYNTAXES:
        name = syntax.name if syntax.is_transfer_syntax else "a transfer syntax that is not in the standard"
        names = ", ".join(known.name for known in SYNTAXES)
        raise InvalidInput.of(field, f"is a DICOM file in {name}, expected one of {names}")
    dataset = read_dataset(
        file,
        is_implicit_VR=syntax.is_implicit_VR,
        is_little_endian=syntax.is_little_endian,
        specific_tags=list(TAGS),
        stop_when=lambda tag, *_: tag > PIXEL_DATA,
    )
    for tag in dataset.keys():  # noqa: SIM118 - iterating a Dataset would parse its elements
        element = dataset.get_item(tag)
        if isinstance(element, RawDataElement) and tag != PIXEL_DATA and len(element.value or b"") > MAX_ELEMENT_BYTES:
            raise TooComplex
    if "PixelData" not in dataset:
        raise InvalidInput.of(field, "is a DICOM file without Pixel Data; expected one with a picture")
    return dataset, syntax


def _read_layout(dataset: Dataset, syntax: uid.UID, field: str) -> Layout:
    def number(keyword: str, expected: range, default: int | None = None) -> int:
        value = dataset.get(keyword, default)
        if value is None and default is not None:
            value = default
        if not isinstance(value, int):
            raise InvalidInput.of(field, f"is a DICOM file without a valid {keyword}")
        if value not in expected:
            choices = f"{expected[0]} to {expected[-1]}" if expected.step == 1 else f"{expected[0]} or {expected[-1]}"
            raise InvalidInput.of(field, f"is a DICOM file whose {keyword} is {int(value)}, expected {choices}")
        return int(value)

    samples = number("SamplesPerPixel", range(1, 4, 2))
    allocated = number("BitsAllocated", range(8, 17, 8))
    stored = number("BitsStored", range(1, allocated + 1))
    return Layout(
        syntax=syntax,
        rows=number("Rows", range(1, 65536)),
        columns=number("Columns", range(1, 65536)),
        frames=number("NumberOfFrames", range(1, MAX_FRAMES + 1), 1),
        samples=samples,
        photometric=_photometric(dataset, samples, field),
        allocated=allocated,
        stored=stored,
        high=number("HighBit", range(stored - 1, allocated), stored - 1),
        signed=bool(number("PixelRepresentation", range(2))),
        planar=number("PlanarConfiguration", range(2), 0),
    )


def _photometric(dataset: Dataset, samples: int, field: str) -> str:
    known = (
        ("MONOCHROME1", "MONOCHROME2", "PALETTE COLOR")
        if samples == 1
        else ("RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT")
    )
    value = dataset.get("PhotometricInterpretation")
    if value not in known:
        expected = ", ".join(known)
        raise InvalidInput.of(field, f"is a DICOM file whose PhotometricInterpretation is none of {expected}")
    return str(value)


def _decode(dataset: Dataset, layout: Layout, frame: int, field: str) -> tuple[NDArray[np.generic], str]:
    """Decodes one frame to [rows, columns] or [rows, columns, samples], and says in which colours it is now."""
    element = dataset["PixelData"]
    pixels, frames = element.value, layout.frames
    if layout.syntax.is_encapsulated:
        codestream = _codestream(pixels, frame, frames)
        _check_size(codestream, layout, field)
        pixels, frame, frames = encapsulate([codestream], has_bot=False), 0, 1
    array, properties = get_decoder(layout.syntax).as_array(
        pixels,
        index=frame,
        decoding_plugin=SYNTAXES[layout.syntax],
        rows=layout.rows,
        columns=layout.columns,
        number_of_frames=frames,
        samples_per_pixel=layout.samples,
        photometric_interpretation=layout.photometric,
        bits_allocated=layout.allocated,
        bits_stored=layout.stored,
        pixel_representation=int(layout.signed),
        planar_configuration=layout.planar,
        pixel_keyword="PixelData",
        pixel_vr=element.VR,
        correct_unused_bits=False,  # done below, and for every high bit
    )
    return array, str(properties["photometric_interpretation"])


def _codestream(pixels: bytes, frame: int, frames: int) -> bytes:
    """The compressed bytes of one frame."""
    if int.from_bytes(pixels[4:8], "little") not in {0, 4 * frames}:
        raise ValueError("the table of offsets has not one for each frame")
    return get_frame(BoundedFile(pixels), frame, number_of_frames=frames)


def _check_size(codestream: bytes, layout: Layout, field: str) -> None:
    """Refuses a codestream that would decode to another size than the file says, before it does."""
    plugin = SYNTAXES[layout.syntax]
    if layout.syntax == uid.RLELossless:  # has no size of its own
        return
    if plugin == "pillow":
        with Image.open(io.BytesIO(codestream), formats=("JPEG", "JPEG2000")) as image:
            size = image.size
    else:
        header = jpeg_header(codestream)
        size = (header.columns, header.rows)
        if header.components != layout.samples:
            raise ValueError("the codestream has another number of samples")
    if size != (layout.columns, layout.rows):
        raise InvalidInput.of(
            field,
            f"is a DICOM file of {layout.columns} x {layout.rows} pixels whose compressed frame is "
            f"{size[0]} x {size[1]}",
        )


def _of_frame(dataset: Dataset, frame: int) -> Dataset:
    """The elements that hold for one frame: of an enhanced file, those of its functional groups too."""
    merged = Dataset(dataset)
    shared = _item(dataset, "SharedFunctionalGroupsSequence", 0)
    own = _item(dataset, "PerFrameFunctionalGroupsSequence", frame)
    for groups in (shared, own):
        for keyword in GROUPS:
            if groups is not None and (group := _item(groups, keyword, 0)) is not None:
                merged.update(group)
    return merged


def _item(dataset: Dataset, keyword: str, index: int) -> Dataset | None:
    sequence = dataset.get(keyword)
    if sequence is None:
        return None
    if not isinstance(sequence, Sequence):
        raise TypeError(keyword)
    return sequence[index] if len(sequence) else None


def _show(
    array: NDArray[np.generic], photometric: str, dataset: Dataset, layout: Layout, field: str
) -> tuple[Image.Image, str | None]:
    """Brings decoded values to 8 bits of grey or colour."""
    if layout.samples == 3 and (
        layout.signed or photometric != "RGB" or (layout.stored != 8 and "YBR" in layout.photometric)
    ):
        raise InvalidInput.of(
            field, f"is a DICOM file with {layout.photometric} pixels of {layout.stored} bits, which are not read"
        )
    # Only RLE keeps the file's words; other codecs give the values themselves.
    words = array.view(f"u{array.dtype.itemsize}")
    if not layout.syntax.is_encapsulated or layout.syntax == uid.RLELossless:
        words = words >> (layout.high + 1 - layout.stored)
    elif not layout.signed and int(words.max()) >> layout.stored:
        raise ValueError("the codestream has more bits than the file says")
    words = words & ((1 << layout.stored) - 1)
    if layout.photometric == "PALETTE COLOR":
        pixels, message = color_from_palette(words, layout.stored, dataset, signed=layout.signed)
    elif layout.samples == 1:
        pixels, message = gray(words, layout.stored, dataset, signed=layout.signed)
    elif layout.stored > 8:
        pixels, message = words >> (layout.stored - 8), f"reduced from {layout.stored} to 8 bits"
    else:
        pixels, message = words << (8 - layout.stored), None
    return Image.fromarray(np.ascontiguousarray(pixels, np.uint8)), message
