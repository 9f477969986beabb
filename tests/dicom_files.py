"""DICOM files made for tests, with a patient whose name must never be seen again."""

import io

import numpy as np
from numpy.typing import NDArray
from pydicom import uid
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
    """A file of the pixels [rows, columns], or [rows, columns, 3]; with `frames`, of so many along a first axis.

    Args:
        pixels: as stored, in 8 or 16 bits.
        syntax: of the file.
        frames: its NumberOfFrames.
        encoded: compressed frames, which go into the file instead of the pixels.
        elements: by keyword, also those that follow from the pixels; None leaves one out.
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
    """An item of a sequence."""
    dataset = Dataset()
    for keyword, value in elements.items():
        setattr(dataset, keyword, value)
    return dataset
