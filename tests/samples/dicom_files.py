"""DICOM files for tests, with a patient's name that must not appear in any output."""

import io
import struct
from collections.abc import Mapping

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydicom import uid
from pydicom.datadict import dictionary_VR, tag_for_keyword
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate

PATIENT = ("Secretperson^Ada", "PID-4711-SECRET", "19600229")


def dicom(
    pixels: NDArray[np.generic],
    *,
    syntax: uid.UID = uid.ExplicitVRLittleEndian,
    frames: int | None = None,
    encoded: list[bytes] | None = None,
    **elements: object,
) -> bytes:
    """Writes a DICOM file of pixels [rows, columns] or [rows, columns, 3]; with `frames`, with a leading frame axis.

    Args:
        pixels: stored values, in 8 or 16 bits.
        syntax: transfer syntax.
        frames: NumberOfFrames.
        encoded: compressed frames to store instead of the pixels.
        elements: elements by keyword, which override those derived from the pixels; None omits one.
    """
    first = pixels if frames is None else pixels[0]
    bits = 8 * pixels.dtype.itemsize
    stored = elements.get("BitsStored", bits)
    assert isinstance(stored, int)
    described: dict[str, object] = {
        "PatientName": PATIENT[0],
        "PatientID": PATIENT[1],
        "PatientBirthDate": PATIENT[2],
        "Modality": "OT",
        "SOPClassUID": uid.SecondaryCaptureImageStorage,
        "SOPInstanceUID": "1.2.3.4",
        "SamplesPerPixel": first.shape[2] if first.ndim == 3 else 1,
        "PhotometricInterpretation": "RGB" if first.ndim == 3 else "MONOCHROME2",
        "NumberOfFrames": frames,
        "Rows": first.shape[0],
        "Columns": first.shape[1],
        "BitsAllocated": bits,
        "BitsStored": bits,
        "HighBit": stored - 1,
        "PixelRepresentation": int(pixels.dtype.kind == "i"),
        "PlanarConfiguration": 0 if first.ndim == 3 else None,
    }
    dataset = Dataset()
    for keyword, value in (described | elements).items():
        if value is not None:
            setattr(dataset, keyword, value)
    if encoded is not None:
        dataset.PixelData = encapsulate(encoded)
    elif "PixelData" not in elements:
        data = pixels.astype(pixels.dtype.newbyteorder("<" if syntax.is_little_endian else ">")).tobytes()
        dataset.PixelData = data + bytes(len(data) % 2)
    dataset["PixelData"].VR = "OW" if bits == 16 and encoded is None else "OB"
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = syntax
    file = io.BytesIO()
    dataset.save_as(file, enforce_file_format=True)
    return file.getvalue()


def item(**elements: object) -> Dataset:
    """Returns an item of a sequence."""
    dataset = Dataset()
    for keyword, value in elements.items():
        setattr(dataset, keyword, value)
    return dataset


Typed = tuple[str, object]
"""A value representation and a value: raw bytes, numbers or text."""
LONG = {"OB", "OW", "SQ", "UN"}
NUMBERS = {"US": "u2", "SS": "i2", "UL": "u4"}


def raw_dicom(
    pixels: NDArray[np.generic],
    syntax: uid.UID = uid.ExplicitVRLittleEndian,
    **elements: object,
) -> bytes:
    """Writes a file without pydicom, which would choose value representations and byte orders itself.

    Args:
        pixels: Stored values, [rows, columns] or [rows, columns, 3].
        syntax: Transfer syntax.
        elements: By keyword, also those that follow from the pixels; None leaves one out. A value is of the
            dictionary's value representation (the first of several), or `Typed`; of a sequence, a list of dictionaries;
            of PixelData, with a compressed syntax, `("OB", [frame])`.
    """
    order = "<" if syntax.is_little_endian else ">"
    bits = 8 * pixels.dtype.itemsize
    described: dict[str, object] = {
        "SamplesPerPixel": 3 if pixels.ndim == 3 else 1,
        "PhotometricInterpretation": "RGB" if pixels.ndim == 3 else "MONOCHROME2",
        "PlanarConfiguration": 0 if pixels.ndim == 3 else None,
        "Rows": pixels.shape[0],
        "Columns": pixels.shape[1],
        "BitsAllocated": bits,
        "BitsStored": bits,
        "PixelRepresentation": int(pixels.dtype.kind == "i"),
        "PixelData": (
            "OW" if bits == 16 else "OB",
            pixels.astype(f"{order}{pixels.dtype.kind}{pixels.dtype.itemsize}").tobytes(),
        ),
    } | elements
    described.setdefault("HighBit", described["BitsStored"] - 1)  # type: ignore[operator]
    meta = _elements({"TransferSyntaxUID": ("UI", str(syntax).encode())}, "<", implicit=False)
    meta = _elements({"FileMetaInformationGroupLength": ("UL", len(meta))}, "<", implicit=False) + meta
    return bytes(128) + b"DICM" + meta + _elements(described, order, implicit=syntax.is_implicit_VR)


def _elements(elements: Mapping[str, object], order: str, *, implicit: bool) -> bytes:
    found = {tag: value for keyword, value in elements.items() if (tag := tag_for_keyword(keyword)) is not None}
    assert len(found) == len(elements)
    parts = []
    for tag, value in sorted(found.items()):
        if value is None:
            continue
        vr, plain = value if isinstance(value, tuple) else (dictionary_VR(tag).split(" ")[0], value)
        if vr == "OB" and isinstance(plain, list):
            parts.append(struct.pack("<HH2sHL", tag >> 16, tag & 0xFFFF, b"OB", 0, 0xFFFFFFFF) + encapsulate(plain))
            parts.append(struct.pack("<HHL", 0xFFFE, 0xE0DD, 0))
            continue
        data = _value(vr, plain, order, implicit=implicit)
        head = struct.pack(f"{order}HH", tag >> 16, tag & 0xFFFF)
        if implicit:
            head += struct.pack(f"{order}L", len(data))
        elif vr in LONG:
            head += vr.encode() + struct.pack(f"{order}HL", 0, len(data))
        else:
            head += vr.encode() + struct.pack(f"{order}H", len(data))
        parts.append(head + data)
    return b"".join(parts)


def _value(vr: str, value: object, order: str, *, implicit: bool) -> bytes:
    if vr == "SQ":
        assert isinstance(value, list)
        items = [_elements(each, order, implicit=implicit) for each in value]
        return b"".join(struct.pack(f"{order}HHL", 0xFFFE, 0xE000, len(each)) + each for each in items)
    if isinstance(value, bytes):
        data = value
    elif vr in NUMBERS:
        data = np.atleast_1d(np.array(value)).astype(f"{order}{NUMBERS[vr]}").tobytes()
    else:
        data = str(value).encode()
    return data + (b" " if vr in {"CS", "DS", "IS"} else b"\0") * (len(data) % 2)


def words(numbers: ArrayLike, syntax: uid.UID) -> bytes:
    """Encodes numbers as 16-bit words in the byte order of a transfer syntax."""
    return np.asarray(numbers).astype("<u2" if syntax.is_little_endian else ">u2").tobytes()


def packed(numbers: ArrayLike, syntax: uid.UID) -> bytes:
    """Packs 8-bit numbers into 16-bit words, the first in the low byte of a word (PS3.3 C.11.1.1.1)."""
    data = np.asarray(numbers, np.uint8).tobytes()
    return words(np.frombuffer(data + bytes(len(data) % 2), "<u2"), syntax)
