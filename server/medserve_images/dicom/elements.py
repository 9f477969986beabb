"""Reads single data elements of a DICOM file from their raw bytes, with bounded resources.

pydicom locates the elements. Their values are interpreted here, because pydicom determines the sign of a lookup table's
first mapped value by rules that differ from the standard, and because its errors may quote the file.
"""

import io
import re

import numpy as np
from numpy.typing import NDArray
from pydicom.charset import default_encoding
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.filereader import read_sequence
from pydicom.sequence import Sequence

from medserve_images.errors import ImageRefused

# Limit for a parser: about a second of work. An enhanced CT with 1,000 frames needs a tenth of it.
MAX_READS = 200_000
MAX_VALUE_BYTES = 2 * 65536  # a lookup table of 65,536 words; nothing else that is read is larger
MAX_SEGMENTS = 5_000  # in a codestream's header, including fill bytes
MAX_SEQUENCE_BYTES = 4 * 1024 * 1024
# Larger numbers are implausible, and computing with them would overflow.
MAX_NUMBER = 1e30

WORD_VRS = {None, "US", "SS", "OW", "OB", "UN"}
TEXT_VRS = {None, "CS", "DS", "IS", "UN"}
NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)


class TooComplex(Exception):
    """A file that would take too long to parse."""


class BoundedFile(io.BytesIO):
    """A file with a bounded number of reads, which bounds the time of a parser for any content."""

    def __init__(self, data: bytes) -> None:
        super().__init__(data)
        self._left = MAX_READS

    def read(self, size: int | None = -1) -> bytes:
        """Reads bytes like `io.BytesIO.read`.

        Raises:
            TooComplex: The file has been read too many times.
        """
        self._left -= 1
        self.check()
        return super().read(size)

    def check(self) -> None:
        """Raises TooComplex again, in case the parser suppressed it.

        Raises:
            TooComplex: The file has been read too many times.
        """
        if self._left < 0:
            raise TooComplex


def refusal(reason: str) -> ImageRefused:
    """Returns the error for a DICOM file; its message is "is a DICOM file" followed by the reason."""
    return ImageRefused(f"is a DICOM file {reason}")


def raw_element(dataset: Dataset, keyword: str) -> RawDataElement | None:
    """Returns an unparsed element; None if it is missing or empty.

    Raises:
        ImageRefused: The element is a sequence.
        TooComplex: The element is too large.
    """
    element: object = dataset.get_item(keyword) if keyword in dataset else None
    if not isinstance(element, RawDataElement):  # pydicom parses sequences and empty values immediately
        if getattr(element, "value", None):
            raise refusal(f"whose {keyword} is a sequence, expected a value")
        return None
    if len(element.value or b"") > MAX_VALUE_BYTES:
        raise TooComplex
    return element if element.value else None


def bytes_of(element: RawDataElement, keyword: str) -> bytes:
    """Returns the value of an element of 8- or 16-bit words, in the byte order of `byte_order`.

    Raises:
        ImageRefused: The element has an unexpected value representation.
    """
    if element.VR not in WORD_VRS:
        raise refusal(f"whose {keyword} has an unexpected value representation, expected US, SS or OW")
    return element.value or b""


def byte_order(element: RawDataElement, keyword: str) -> str:
    """Returns "<" or ">" for an element of 16-bit words.

    Raises:
        ImageRefused: The byte order is undefined: the file is big endian, which does not apply to OB and UN (PS3.5
            6.2.2).
    """
    if element.is_little_endian:
        return "<"
    if element.VR in {"OB", "UN"}:
        raise refusal(f"in big endian whose {keyword} has the value representation {element.VR}, expected US, SS or OW")
    return ">"


def words(dataset: Dataset, keyword: str) -> NDArray[np.uint16] | None:
    """Returns the 16-bit words of an element as unsigned numbers, even if the file declares them as signed.

    Raises:
        ImageRefused: The element has an unexpected value representation or an odd length.
        TooComplex: The element is too large.
    """
    if (element := raw_element(dataset, keyword)) is None:
        return None
    data = bytes_of(element, keyword)
    if len(data) % 2:
        raise refusal(f"whose {keyword} has {len(data)} bytes, expected an even number")
    return np.frombuffer(data, f"{byte_order(element, keyword)}u2").astype(np.uint16)


def integer(dataset: Dataset, keyword: str, *, signed: bool = False) -> int | None:
    """Returns the first 16-bit word of an element as a number; None if it is missing or empty.

    Raises:
        ImageRefused: The element does not consist of words.
        TooComplex: The element is too large.
    """
    found = words(dataset, keyword)
    return None if found is None else int(found.view(np.int16 if signed else np.uint16)[0])


def text(dataset: Dataset, keyword: str) -> str:
    """Returns an ASCII text element without padding; "" if it is missing or empty.

    Raises:
        ImageRefused: The element has an unexpected value representation, or non-ASCII characters.
        TooComplex: The element is too large.
    """
    if (element := raw_element(dataset, keyword)) is None:
        return ""
    value = element.value or b""
    if element.VR not in TEXT_VRS or not value.isascii():
        raise refusal(f"whose {keyword} is not an ASCII text")
    return value.decode("ascii").strip(" \0")


def decimal(dataset: Dataset, keyword: str) -> float | None:
    """Returns the first number of an element of decimal or integer strings; None if it is missing or empty.

    Raises:
        ImageRefused: The element is not a number, or is implausibly large.
        TooComplex: The element is too large.
    """
    if not (value := text(dataset, keyword)):
        return None
    first = value.split("\\", 1)[0].strip(" \0")
    if not NUMBER.fullmatch(first):
        # Quoting only digits and punctuation cannot disclose the text of another element.
        shown = (
            f'"{first}"' if re.fullmatch(r"[\d+\-.,eE ]{1,24}", first, re.ASCII) else "empty" if not first else "text"
        )
        raise refusal(f"whose {keyword} is {shown}, expected a decimal number")
    if not abs(number := float(first)) < MAX_NUMBER:
        raise refusal(f"whose {keyword} is {number:g}, expected less than {MAX_NUMBER:g}")
    return number


def item_of(dataset: Dataset, keyword: str, index: int = 0) -> Dataset | None:
    """Returns an item of a sequence; None if the sequence is missing or empty.

    Raises:
        ImageRefused: The sequence has too few items, or the element is not a sequence.
        TooComplex: The sequence is too large.
    """
    sequence = items_of(dataset, keyword)
    if sequence is None:
        return None
    if index and index >= len(sequence):
        raise refusal(f"whose {keyword} has {len(sequence)} items, expected at least {index + 1}")
    return sequence[index] if len(sequence) else None


def items_of(dataset: Dataset, keyword: str) -> Sequence | None:
    """Returns the items of a sequence; None if it is missing.

    Raises:
        ImageRefused: The element is not a sequence.
        TooComplex: The sequence is too large.
    """
    if keyword not in dataset:
        return None
    element: object = dataset.get_item(keyword)
    if isinstance(element, RawDataElement):
        sequence: object = _parsed(element)
    else:  # of undefined length: already parsed by pydicom
        sequence = getattr(element, "value", None)
    if not isinstance(sequence, Sequence):
        raise refusal(f"whose {keyword} is not a sequence")
    return sequence


def _parsed(element: RawDataElement) -> Sequence | None:
    if element.VR not in {None, "SQ", "UN"}:
        return None
    data = element.value or b""
    if len(data) > MAX_SEQUENCE_BYTES:
        raise TooComplex
    file = BoundedFile(data)
    unknown = element.VR == "UN"  # encoded in Implicit VR Little Endian in every transfer syntax (PS3.5 6.2.2)
    try:
        return read_sequence(
            file,
            element.is_implicit_VR or unknown,
            element.is_little_endian or unknown,
            len(data),
            default_encoding,
        )
    finally:
        file.check()
