"""Orientation, transparency and color profiles of raster images."""

from PIL import Image

from medserve_images.errors import ImageRefused
from medserve_images.warning import ImageWarning

_ORIENTATION = 0x0112
_TRANSPOSE = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def upright(image: Image.Image, orientation: int) -> Image.Image:
    """Applies the orientation (TIFF 6.0 and Exif 2.3, tag 274) to an image; unknown values leave it unchanged."""
    method = _TRANSPOSE.get(orientation)
    return image if method is None else image.transpose(method)


def exif_orientation(image: Image.Image) -> int:
    """Returns the orientation in the Exif data of a PNG or JPEG; 1 if there is none.

    Orientations in XMP, which Pillow would use as a fallback, are ignored: they are not part of Exif 2.3, and most
    viewers ignore them.
    """
    for key in ("xmp", "XML:com.adobe.xmp"):
        image.info.pop(key, None)
    orientation = image.getexif().get(_ORIENTATION, 1)
    return orientation if isinstance(orientation, int) else 1


def transparent() -> ImageRefused:
    """Returns the error for an image with transparent pixels."""
    return ImageRefused("has transparent pixels, whose color is undefined; send it without transparency")


def profile_warnings(profile: bytes | None) -> list[ImageWarning]:
    """Returns a warning that a color profile is not applied, unless it is sRGB, which is assumed by default."""
    if not profile or b"sRGB" in profile or "sRGB".encode("utf-16-be") in profile:
        return []
    return [ImageWarning("PROFILE_IGNORED", "has a color profile (ICC) other than sRGB, which is not applied")]
