"""Converts images, given as paths, bytes, files, Pillow images or arrays, to request messages."""

import io
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, Protocol, TypeAlias, TypeGuard

import grpc
import numpy as np
from numpy.typing import NDArray

from medserve_client.errors import ResourceExhaustedError
from medserve_proto.v1 import image_classification_pb2 as image_pb


class BinaryFile(Protocol):
    """A readable binary file object: an open file, an io.BytesIO or the response to an HTTP request."""

    def read(self, size: int, /) -> bytes:
        """Returns at most `size` bytes; empty at the end."""


class PilImage(Protocol):
    """The interface of PIL.Image.Image used here; the client does not depend on Pillow."""

    @property
    def mode(self) -> str:
        """Pixel format."""

    def load(self) -> object:
        """Loads the pixels of an opened image."""

    def getexif(self) -> Mapping[int, Any]:
        """Returns the Exif tags."""

    def save(self, fp: IO[bytes], format: str | None = None, **params: Any) -> None:  # noqa: A002, ANN401 - Pillow's
        """Writes the image to a file."""


# A file path; the bytes of a PNG, JPEG, TIFF or DICOM file, or a file object to read them from; a Pillow image; or
# pixels: uint8 [H, W] or [H, W, C].
ImageSource: TypeAlias = (
    str | os.PathLike[str] | bytes | bytearray | memoryview | BinaryFile | PilImage | NDArray[np.uint8]
)
Images: TypeAlias = ImageSource | Sequence[ImageSource]

_ACCEPTED = (
    "a path (str or os.PathLike), bytes, a bytearray or memoryview, a file opened in binary mode, a PIL image, "
    "or a NumPy array of uint8"
)
_CHUNK_BYTES = 1 << 20
_LARGEST_MESSAGE = 2**31 - 1
"""Maximum size of a protobuf message in bytes."""
# Modes that PNG stores without conversion.
_PIL_MODES = ("1", "L", "LA", "P", "RGB", "RGBA", "I;16")
_EXIF_ORIENTATION = 0x0112
_ROTATED_OR_FLIPPED = range(2, 9)


def to_images(images: Images, frame: int, max_bytes: int) -> list[image_pb.Image]:
    """Reads one image, or every image of a sequence.

    Args:
        images: the images. A sequence is a batch unless it is itself an ImageSource, e.g. bytes.
        frame: frame index of each image, from 0.
        max_bytes: maximum total size; -1 for the maximum size of a protobuf message.

    Raises:
        OSError: a file cannot be read.
        TypeError: an image is not an ImageSource, or its array is not uint8.
        ValueError: an array or a Pillow image cannot be sent unchanged, a file object is at its end, or the frame is
            not from 0 to 2 ** 32 - 1.
        ResourceExhaustedError: the images are too large; no file is read beyond the limit.
    """
    left = max_bytes if max_bytes >= 0 else _LARGEST_MESSAGE
    messages = []
    for index, source in enumerate(_batch(images)):
        field = f"images[{index}]"
        message = _image(source, frame, field, left)
        left -= message.ByteSize()
        if left < 0:
            raise _too_large(field)
        messages.append(message)
    return messages


def check_batches(batches: object) -> None:
    """Rejects a single image passed as `batches`: its lines, rows or bytes would be taken for images.

    Raises:
        TypeError: `batches` is a single image.
    """
    if _is_single(batches):
        raise TypeError(
            f"batches is a single image, a {type(batches).__name__}; expected an iterable of batches, "
            "e.g. a list of images"
        )


def _batch(images: Images) -> Sequence[ImageSource]:
    if isinstance(images, Sequence) and not isinstance(images, str | bytes | bytearray | memoryview):
        return images
    if _is_single(images):
        return [images]
    raise TypeError(f"images is a {type(images).__name__}; expected {_ACCEPTED}, or a list of these")


def _is_single(images: object) -> TypeGuard[ImageSource]:
    kinds = (str, os.PathLike, bytes, bytearray, memoryview, np.ndarray)
    return isinstance(images, kinds) or _is_pil_image(images) or hasattr(images, "read")


def _is_pil_image(source: object) -> TypeGuard[PilImage]:
    module = sys.modules.get("PIL.Image")  # imported already if the caller has a Pillow image
    return module is not None and isinstance(source, module.Image)


def _image(source: ImageSource, frame: int, field: str, limit: int) -> image_pb.Image:
    if isinstance(source, np.ndarray):
        return image_pb.Image(raw=_raw_image(source, field), frame=frame)
    return image_pb.Image(encoded=_encoded(source, field, limit), frame=frame)


def _encoded(source: object, field: str, limit: int) -> bytes:
    if isinstance(source, bytes | bytearray | memoryview):
        return bytes(source)
    if isinstance(source, str | os.PathLike):
        with Path(source).open("rb") as file:
            return _read(file.read, field, limit)
    if _is_pil_image(source):
        return _png(source, field)
    if (read := getattr(source, "read", None)) is None:
        raise TypeError(f"{field} is a {type(source).__name__}; expected {_ACCEPTED}")
    if not (content := _read(read, field, limit)):
        raise ValueError(f"{field} is a file object at its end; call seek(0) to rewind it")
    return content


def _read(read: Callable[[int], object], field: str, limit: int) -> bytes:
    """Reads a file to its end.

    Raises:
        ResourceExhaustedError: it has more than `limit` bytes; it is not read further.
        TypeError: `read` does not return bytes.
    """
    content = bytearray()
    while len(content) <= limit:
        try:
            part = read(min(_CHUNK_BYTES, limit + 1 - len(content)))
        except UnicodeDecodeError:  # only text is decoded
            part = ""
        if isinstance(part, str):
            raise TypeError(f"{field} is a file opened in text mode; open it in binary mode, as in open(path, 'rb')")
        if not isinstance(part, bytes):
            raise TypeError(f"{field}.read() returned a {type(part).__name__}; expected bytes")
        if not part:
            return bytes(content)
        content += part
    raise _too_large(field)


def _too_large(field: str) -> ResourceExhaustedError:
    text = f"not sent: {field} makes the request larger than the client's max_message_bytes"
    return ResourceExhaustedError(grpc.StatusCode.RESOURCE_EXHAUSTED, text)


def _raw_image(pixels: NDArray[np.uint8], field: str) -> image_pb.RawImage:
    if pixels.dtype != np.uint8:
        raise TypeError(f"{field} is an array of {pixels.dtype}; expected uint8, from 0 to 255")
    if pixels.ndim not in (2, 3):
        raise ValueError(
            f"{field} is an array of shape {pixels.shape}; expected [height, width] or [height, width, channels]. "
            "Pass several images as a list"
        )
    return image_pb.RawImage(pixels=pixels.tobytes(), shape=pixels.shape)


def _png(image: PilImage, field: str) -> bytes:
    """Encodes a PIL image losslessly, so that the server handles palettes, 16 bits and color profiles as in files."""
    image.load()  # applies the orientation tag of a TIFF
    if image.mode not in _PIL_MODES:
        raise ValueError(
            f"{field} is a PIL image of mode {image.mode}; expected one of {', '.join(_PIL_MODES)}. "
            "Convert it, e.g. with image.convert('RGB'), or pass the original file"
        )
    if (orientation := image.getexif().get(_EXIF_ORIENTATION)) in _ROTATED_OR_FLIPPED:
        raise ValueError(
            f"{field} is a PIL image with Exif orientation {orientation}, which may not be applied to its pixels yet; "
            "pass PIL.ImageOps.exif_transpose(image), or numpy.asarray(image) to send the pixels unchanged"
        )
    file = io.BytesIO()
    image.save(file, "PNG", compress_level=1)
    return file.getvalue()
