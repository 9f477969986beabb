"""Pictures as a program holds them, and the messages that they become."""

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
    """What gives bytes when it is read: a file opened in binary mode, an io.BytesIO, the answer to an HTTP request."""

    def read(self, size: int, /) -> bytes:
        """Returns as many bytes at most; none at the end."""


class PilImage(Protocol):
    """A PIL.Image.Image, as far as it is used here: the client does not need Pillow."""

    @property
    def mode(self) -> str:
        """How its pixels are stored."""

    def load(self) -> object:
        """Reads the pixels of an image that was opened."""

    def getexif(self) -> Mapping[int, Any]:
        """Returns its Exif tags."""

    def save(self, fp: IO[bytes], format: str | None = None, **params: Any) -> None:  # noqa: A002, ANN401 - Pillow's
        """Writes it to a file."""


# A file's path; the bytes of a PNG, JPEG, TIFF or DICOM file, or a file object to read them from; an image of Pillow;
# or pixels: uint8 [H, W] or [H, W, C].
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
"""Bytes of any protobuf message."""
# Those that a PNG holds as they are.
_PIL_MODES = ("1", "L", "LA", "P", "RGB", "RGBA", "I;16")
_EXIF_ORIENTATION = 0x0112
_TURNED = range(2, 9)


def to_images(images: Images, frame: int, max_bytes: int) -> list[image_pb.Image]:
    """Reads one picture, or every picture of a sequence.

    Args:
        images: the pictures. A sequence is a batch unless it is one of the kinds of ImageSource, as bytes are.
        frame: of each picture, from 0.
        max_bytes: how large they may be together; -1 for as large as a message can be.

    Raises:
        OSError: a file can't be read.
        TypeError: a picture is none of the kinds of ImageSource, or its array is not uint8.
        ValueError: an array or an image of Pillow can't be sent as it is, a file object is at its end, or the frame is
            not from 0 to 2 ** 32 - 1.
        ResourceExhaustedError: the pictures are too large; no file is read further than that.
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
    """Refuses one picture in the place of many batches: its lines, rows or bytes would be taken for pictures.

    Raises:
        TypeError: it is one picture.
    """
    if _is_single(batches):
        raise TypeError(
            f"batches is one picture, a {type(batches).__name__}; expected batches, e.g. a list of pictures"
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
    module = sys.modules.get("PIL.Image")  # whoever has an image of it has imported it
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
        raise ValueError(f"{field} is a file object at its end; seek(0) takes it back to its beginning")
    return content


def _read(read: Callable[[int], object], field: str, limit: int) -> bytes:
    """Reads a file to its end, or to where it is too large."""
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
    text = f"not sent: with {field} the request is larger than a message may be (max_message_bytes of the client)"
    return ResourceExhaustedError(grpc.StatusCode.RESOURCE_EXHAUSTED, text)


def _raw_image(pixels: NDArray[np.uint8], field: str) -> image_pb.RawImage:
    if pixels.dtype != np.uint8:
        raise TypeError(f"{field} is an array of {pixels.dtype}; expected uint8, from 0 to 255")
    if pixels.ndim not in (2, 3):
        raise ValueError(
            f"{field} is an array of shape {pixels.shape}; expected [height, width] or [height, width, channels]. "
            "Pass several pictures as a list"
        )
    return image_pb.RawImage(pixels=pixels.tobytes(), shape=pixels.shape)


def _png(image: PilImage, field: str) -> bytes:
    """Writes a PIL image as a file without loss, for the server to read as any other: palettes, 16 bits, profiles."""
    image.load()  # of a TIFF, this turns the pixels as its tag says
    if image.mode not in _PIL_MODES:
        raise ValueError(
            f"{field} is a PIL image of mode {image.mode}; expected one of {', '.join(_PIL_MODES)}. "
            "Convert it, as in image.convert('RGB'), or pass the file that it came from"
        )
    if (orientation := image.getexif().get(_EXIF_ORIENTATION)) in _TURNED:
        raise ValueError(
            f"{field} is a PIL image with the Exif orientation {orientation}, and its pixels may not be turned so yet; "
            "pass PIL.ImageOps.exif_transpose(image), or numpy.asarray(image) for the pixels as they are"
        )
    file = io.BytesIO()
    image.save(file, "PNG", compress_level=1)
    return file.getvalue()
