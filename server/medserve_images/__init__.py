"""Reads image files: hostile bytes in, the pixels that a model takes out.

Training and serving both read images with this package, so that a model sees the same pixels in both.
"""

from medserve_images.errors import ImageRefused
from medserve_images.reader import ImageReader, Pixels
from medserve_images.target import ImageLimits, Target
from medserve_images.warning import ImageWarning

__all__ = ["ImageLimits", "ImageReader", "ImageRefused", "ImageWarning", "Pixels", "Target"]
