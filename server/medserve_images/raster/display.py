"""What decides how decoded samples are shown: orientation, transparency, and color profiles that are not applied."""

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
    """Turns an image as its orientation says (TIFF 6.0 and Exif 2.3, tag 274); unknown values leave it as it is."""
    method = _TRANSPOSE.get(orientation)
    return image if method is None else image.transpose(method)


def exif_orientation(image: Image.Image) -> int:
    """The orientation that the Exif data of a PNG or JPEG gives; 1 where it has none.

    Pillow would take one from XMP instead, which Exif 2.3 does not know and viewers mostly ignore.
    """
    for key in ("xmp", "XML:com.adobe.xmp"):
        image.info.pop(key, None)
    orientation = image.getexif().get(_ORIENTATION, 1)
    return orientation if isinstance(orientation, int) else 1


def transparent() -> ImageRefused:
    """The refusal of an image with transparent pixels."""
    return ImageRefused("has transparent pixels, whose color is undefined; send it without transparency")


def profile_warnings(profile: bytes | None) -> list[ImageWarning]:
    """Says that a color profile is not applied, unless it is that of sRGB, which is assumed anyway."""
    if not profile or b"sRGB" in profile or "sRGB".encode("utf-16-be") in profile:
        return []
    return [ImageWarning("PROFILE_IGNORED", "has a color profile (ICC) other than sRGB, which is not applied")]
