"""Previews: the images of a request as the model receives them, as PNG files."""

import io

from PIL import Image

from medserve_images import Pixels
from medserve_server.errors import InvalidInput


def check_preview_size(count: int, shape: tuple[int, int, int], max_bytes: int) -> None:
    """Checks the size of the previews of a request, before any image is decoded.

    Args:
        count: number of images.
        shape: height, width and channels of an image.
        max_bytes: maximum size of the previews of one request, in bytes.

    Raises:
        InvalidInput: the previews may be larger.
    """
    if (needed := count * max_png_bytes(shape)) > max_bytes:
        text = f"needs {needed / 2**20:.3g} MiB for {count} images, at most {max_bytes / 2**20:g} are allowed"
        raise InvalidInput.of("preview", f"{text} per request; send fewer images per request", "message_size")


def max_png_bytes(shape: tuple[int, int, int]) -> int:
    """Returns an upper bound for the size in bytes of the PNG file of an image [height, width, channels].

    PNG stores an additional byte for each row (PNG specification, section 7.2). Deflate adds less than a thousandth to
    incompressible data, and the chunks of a small file have about 70 bytes.
    """
    height, width, channels = shape
    rows = height * (width * channels + 1)
    return rows + rows // 1000 + 128


def to_picture(image: Pixels) -> Image.Image:
    """Converts an image of shape [height, width, 1 or 3] to mode L or RGB."""
    return Image.fromarray(image[..., 0] if image.shape[2] == 1 else image)


def to_png(picture: Image.Image) -> bytes:
    """Returns the picture as a PNG file."""
    file = io.BytesIO()
    picture.save(file, "PNG", compress_level=1)  # a quarter of the time for a quarter more bytes
    return file.getvalue()
