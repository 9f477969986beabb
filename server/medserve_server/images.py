"""Pictures in, pixels out: decodes hostile bytes within bounds, and fits the pictures to the model."""

import struct
import zlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from medserve_proto.v1 import manifest_pb2 as manifest
from medserve_server.errors import InvalidInput
from medserve_server.image_bounds import BoundedFile, check_decompression

# The server has a limit of its own, checked before any pixel is decoded.
Image.MAX_IMAGE_PIXELS = None

FORMATS = ("PNG", "JPEG", "TIFF")
# What Pillow's decoders raise on broken files.
UNREADABLE = (
    OSError,
    SyntaxError,
    ValueError,
    TypeError,
    LookupError,
    ArithmeticError,
    EOFError,
    NotImplementedError,
    struct.error,
    zlib.error,
)
RESAMPLING = {
    manifest.RESAMPLING_BILINEAR: Image.Resampling.BILINEAR,
    manifest.RESAMPLING_BICUBIC: Image.Resampling.BICUBIC,
}

Pixels = NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class ImageWarning:
    """Something done to a picture before the model sees it."""

    kind: str
    """A value of medserve.v1.ImageWarning.Kind, without its prefix."""
    message: str


class ImageReader:
    """Brings pictures to the size and colour of one model's input.

    Args:
        target: the model's input, from its manifest.
        max_pixels: of an encoded picture.
        max_ratio: pixels for each of its bytes.
    """

    def __init__(self, target: manifest.ImageInput, max_pixels: int, max_ratio: float) -> None:
        self.height = target.height
        self.width = target.width
        self.mode = "RGB" if target.color_space == manifest.COLOR_SPACE_RGB else "L"
        self.channels = len(self.mode)
        self.crop = target.crop == manifest.CROP_CENTER
        self.resampling = RESAMPLING[target.resampling]
        self.max_pixels = max_pixels
        self.max_ratio = max_ratio

    def from_raw(self, pixels: bytes, shape: tuple[int, ...], field: str) -> Pixels:
        """Views raw bytes as uint8 [height, width, channels]; nothing is fitted.

        Raises:
            InvalidInput: the shape is not the model's, or the bytes are not as many as it says.
        """
        expected = (self.height, self.width, self.channels)
        if shape != expected and not (shape == expected[:2] and self.channels == 1):
            raise InvalidInput.of(f"{field}.shape", f"is {list(shape)}, expected {list(expected)}")
        size = self.height * self.width * self.channels
        if len(pixels) != size:
            raise InvalidInput.of(f"{field}.pixels", f"has {len(pixels)} bytes, expected {size} for {list(shape)}")
        return np.frombuffer(pixels, np.uint8).reshape(expected)

    def from_encoded(self, data: bytes, field: str, frame: int = 0) -> tuple[Pixels, list[ImageWarning]]:
        """Decodes a PNG, JPEG, TIFF or DICOM file to uint8 [height, width, channels] and says what it changed.

        Args:
            data: the file.
            field: of the request, e.g. `images[3]`.
            frame: of a DICOM file, from 0.

        Raises:
            InvalidInput: the file is broken, of another format, too large, or of a kind without one clear reading.
        """
        warnings: list[ImageWarning] = []
        if data[128:132] == b"DICM":
            image = self._decode_dicom(data, field, frame, warnings)
        elif frame:
            raise InvalidInput.of(f"{field}.frame", f"asks for frame {frame}, but only DICOM files have several")
        else:
            image = self._decode(data, f"{field}.encoded")
        picture = self._fit(_to_mode(image, self.mode, f"{field}.encoded", warnings), warnings)
        return np.asarray(picture, np.uint8).reshape(self.height, self.width, self.channels), warnings

    def _decode(self, data: bytes, field: str) -> Image.Image:
        """Decodes the pixels and turns them as the file's orientation tag says."""
        try:
            with Image.open(BoundedFile(data, field), formats=FORMATS) as image:
                self._check(image, field)
                check_decompression(image, len(data), self.max_ratio, field)
                return ImageOps.exif_transpose(image)
        except UNREADABLE as error:
            reason = (
                "is not a PNG, JPEG, TIFF or DICOM file" if isinstance(error, UnidentifiedImageError) else "is broken"
            )
            raise InvalidInput.of(
                field, f"{reason} ({len(data)} bytes); expected a whole picture of these formats"
            ) from error

    def _decode_dicom(self, data: bytes, field: str, frame: int, warnings: list[ImageWarning]) -> Image.Image:
        try:
            from medserve_server.dicom import read_dicom  # noqa: PLC0415 - of the extra dicom
        except ModuleNotFoundError as error:
            raise InvalidInput.of(
                f"{field}.encoded",
                'is a DICOM file, which this server does not read; install "medserve[dicom]" there, or send a PNG',
            ) from error
        image, reduced = read_dicom(data, frame, self.max_pixels, field)
        if reduced is not None:
            warnings.append(ImageWarning("DEPTH_REDUCED", reduced))
        return image

    def _check(self, image: Image.Image, field: str) -> None:
        """Refuses by the header, before anything is decoded."""
        width, height = image.size
        if width * height > self.max_pixels:
            raise InvalidInput.of(
                field,
                f"is {width} x {height} = {width * height / 1e6:.1f} megapixels, "
                f"at most {self.max_pixels / 1e6:g} are accepted; send it smaller",
                "pixels",
            )
        if (frames := getattr(image, "n_frames", 1)) > 1:
            raise InvalidInput.of(field, f"has {frames} frames, expected one; send each frame as an image of its own")

    def _fit(self, image: Image.Image, warnings: list[ImageWarning]) -> Image.Image:
        """Crops and resizes where the size is not the model's."""
        if image.size == (self.width, self.height):
            return image
        box = (0.0, 0.0, float(image.width), float(image.height))
        if self.crop and image.width * self.height != image.height * self.width:
            scale = min(image.width / self.width, image.height / self.height)
            width = min(self.width * scale, image.width)  # rounding may have gone up
            height = min(self.height * scale, image.height)
            left, top = (image.width - width) / 2, (image.height - height) / 2
            box = (left, top, left + width, top + height)
            warnings.append(
                ImageWarning("CROPPED", f"cut to its middle {width:g} x {height:g} of {image.width} x {image.height}")
            )
        size = f"{box[2] - box[0]:g} x {box[3] - box[1]:g}"
        warnings.append(ImageWarning("RESIZED", f"resized from {size} to {self.width} x {self.height}"))
        return image.resize((self.width, self.height), self.resampling, box=box)


def _to_mode(image: Image.Image, mode: str, field: str, warnings: list[ImageWarning]) -> Image.Image:
    """Brings 1-bit, palette, 16-bit, colour and opaque pictures to 8-bit grey or RGB."""
    if image.mode.startswith("I;16"):
        # Pillow would clip at 255 instead of scaling.
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
        warnings.append(ImageWarning("DEPTH_REDUCED", "reduced from 16 to 8 bits, 65535 becoming 255"))
    if image.mode in {"I", "F"}:
        raise InvalidInput.of(field, f"has 32-bit pixels (mode {image.mode}), whose range is unknown; expected 8 or 16")
    if image.has_transparency_data:
        alpha = image.convert("RGBA").getchannel("A")
        if alpha.getextrema() != (255, 255):
            raise InvalidInput.of(field, "has transparent pixels, whose colour is undefined; send it without")
        image = image.convert("RGB" if image.mode in {"RGBA", "P", "PA", "RGB"} else "L")
    if image.mode == mode:
        return image
    if image.mode != "1":
        warnings.append(ImageWarning("COLOR_CONVERTED", f"converted from {image.mode} to {mode}"))
    return image.convert(mode)
