"""JPEG and DICOM files, and images with Exif orientations."""

import io
import itertools
from collections.abc import Callable, Iterator

import numpy as np
from PIL import Image
from pydicom import uid

from image_corpus.cases import HEIGHT, WIDTH, Case, Noise, saved
from samples.dicom_files import dicom, packed, raw_dicom
from samples.image_files import tiff

_METHODS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}


def jpegs(noise: Noise) -> Iterator[Case]:
    for channels, progressive in itertools.product((1, 3), (False, True)):
        smooth = noise.smooth(channels)
        data = saved(Image.fromarray(smooth), "JPEG", quality=98, progressive=progressive)
        yield Case(f"jpeg-{channels}-{progressive}", data, smooth, tolerance=10)
    smooth = noise.smooth(3)
    data = saved(Image.fromarray(smooth), "JPEG", quality=98, keep_rgb=True)
    yield Case("jpeg-rgb", data, smooth, tolerance=10)
    inks = noise.smooth(4)
    data = saved(Image.frombytes("CMYK", (WIDTH, HEIGHT), inks.tobytes()), "JPEG", quality=98)
    rgb = np.round((255.0 - inks[..., :3]) * (255.0 - inks[..., 3:]) / 255).astype(np.uint8)
    yield Case("jpeg-cmyk", data, rgb, tolerance=16)
    adobe = data.index(b"Adobe") - 4
    length = int.from_bytes(data[adobe + 2 : adobe + 4])
    yield Case("jpeg-cmyk-not-adobe", data[:adobe] + data[adobe + 2 + length :], reason="without an Adobe marker")
    gray = saved(Image.fromarray(noise.smooth(1)), "JPEG")
    frame = gray.index(b"\xff\xc0")
    yield Case("jpeg-12", gray[: frame + 4] + bytes([12]) + gray[frame + 5 :], reason="1 x 12 bits per pixel")
    pictures = [noise.smooth(3) for _ in range(2)]
    data = saved(
        Image.fromarray(pictures[0]), "MPO", save_all=True, append_images=[Image.fromarray(pictures[1])], quality=98
    )
    yield Case("jpeg-multi-picture", data, pictures[0], kinds=("FIRST_OF_SEVERAL",), tolerance=10)
    smooth = noise.smooth(3)
    data = saved(Image.fromarray(smooth), "JPEG", quality=98, icc_profile=b"a profile of a wide gamut")
    yield Case("jpeg-profile", data, smooth, kinds=("PROFILE_IGNORED",), tolerance=10)
    smooth = noise.smooth(3)
    srgb = saved(Image.fromarray(smooth), "JPEG", quality=98, icc_profile=b"desc sRGB IEC61966-2.1")
    yield Case("jpeg-srgb", srgb, smooth, tolerance=10)
    yield Case("jpeg-cut", data[: len(data) // 2], reason="is corrupt")
    yield Case("gif", saved(Image.fromarray(noise.gray()), "GIF"), reason="is not a PNG, JPEG, TIFF or DICOM file")
    yield Case("webp", saved(Image.fromarray(smooth), "WEBP"), reason="is not a PNG, JPEG, TIFF or DICOM file")
    yield Case("text", b"no image" * 40, reason="is not a PNG, JPEG, TIFF or DICOM file")


def turned(noise: Noise) -> Iterator[Case]:
    """Files of one image in each of the eight Exif orientations."""
    for orientation, kind in itertools.product(range(1, 9), ("PNG", "JPEG", "TIFF")):
        pixels = noise.smooth(3) if kind == "JPEG" else noise.rgb()
        image = Image.fromarray(pixels)
        stored = image.transpose(_METHODS[orientation]) if orientation > 1 else image
        if kind == "TIFF":
            data = tiff(np.asarray(stored).astype(int), 8, 2, tags={274: (3, [orientation])})
        else:
            exif = Image.Exif()
            exif[0x0112] = orientation
            data = saved(stored, kind, exif=exif, **({"quality": 98} if kind == "JPEG" else {}))
        yield Case(f"orientation-{orientation}-{kind}", data, pixels, tolerance=10 if kind == "JPEG" else 1)


def dicoms(noise: Noise) -> Iterator[Case]:
    make: Callable[..., bytes] = dicom
    for syntax in (uid.ImplicitVRLittleEndian, uid.ExplicitVRLittleEndian, uid.ExplicitVRBigEndian):
        gray = noise.gray()
        yield Case(f"dicom-gray-{syntax.name}", make(gray, syntax=syntax), gray)
        gray = noise.gray()
        window = {"WindowCenter": "32767.5", "WindowWidth": "65536"}
        wide = gray.astype(np.uint16) * 257
        yield Case(f"dicom-16-{syntax.name}", make(wide, syntax=syntax, **window), gray, kinds=("DEPTH_REDUCED",))
    gray = noise.gray()
    yield Case("dicom-inverted", make(255 - gray, PhotometricInterpretation="MONOCHROME1"), gray)
    rgb = noise.rgb()
    yield Case("dicom-rgb", make(rgb), rgb)
    frames = np.stack([noise.gray() for _ in range(3)])
    yield Case("dicom-frames", make(frames, frames=3), frames[0])
    jpeg = saved(Image.fromarray(noise.smooth(1)), "JPEG", quality=98)
    decoded = np.asarray(Image.open(io.BytesIO(jpeg)))
    yield Case("dicom-jpeg", make(gray, syntax=uid.JPEGBaseline8Bit, encoded=[jpeg]), decoded)
    yield from _contradictory_dicoms(noise)
    yield Case("dicom-cut", make(gray)[:300], reason="DICOM")
    yield Case("dicom-short", make(gray)[:-100], reason="DICOM")


def _contradictory_dicoms(noise: Noise) -> Iterator[Case]:
    """DICOM files with elements that are ignored, or with tables whose descriptor is too wide."""
    ignored = ("ELEMENT_IGNORED",)
    gray = noise.gray()
    yield Case("dicom-shape-inverse", dicom(255 - gray, PresentationLUTShape="INVERSE"), gray, kinds=ignored)
    gray = noise.gray()
    yield Case("dicom-shape-unknown", dicom(gray, PresentationLUTShape="LIN OD"), gray, kinds=ignored)
    syntax = uid.ExplicitVRLittleEndian
    identity = {
        "LUTDescriptor": ("US", [256, 0, 8]),
        "ModalityLUTType": ("LO", b"US"),
        "LUTData": ("OW", packed(np.arange(256), syntax)),
    }
    gray = noise.gray()
    data = raw_dicom(gray, syntax, PresentationLUTSequence=[identity])
    yield Case("dicom-presentation-table", data, gray, kinds=ignored)
    gray = noise.gray()
    data = raw_dicom(gray, syntax, ModalityLUTSequence=[identity], RescaleSlope="2", RescaleIntercept="0")
    yield Case("dicom-modality-table-and-slope", data, gray, kinds=ignored)
    smooth = noise.smooth(3)
    jpeg = saved(Image.fromarray(smooth), "JPEG", quality=98, keep_rgb=True)
    data = dicom(smooth, syntax=uid.JPEGBaseline8Bit, encoded=[jpeg], PhotometricInterpretation="YBR_FULL")
    yield Case("dicom-jpeg-of-other-colors", data, smooth, kinds=ignored, tolerance=10)
    gray = noise.gray()
    data = dicom(gray, WindowCenter="128", WindowWidth="256")
    yield Case("dicom-window-of-8-bits", data, gray, kinds=("DEPTH_REDUCED",))
    gray = noise.gray()
    gray[0, 0] = 255
    table = {"LUTDescriptor": ("US", [256, 0, 12]), "LUTData": ("OW", (np.arange(256) * 2).astype("<u2").tobytes())}
    data = raw_dicom(gray, syntax, VOILUTSequence=[table])
    pixels = np.rint(gray * (2 * 255 / 4095)).astype(np.uint8)
    yield Case("dicom-table-of-few-shades", data, pixels, kinds=("DEPTH_REDUCED", "RANGE_UNUSED"))
