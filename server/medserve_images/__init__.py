"""Decodes untrusted image files to the pixels of a model's input.

Training and serving both use this package, so that a model sees the same pixels in both.
"""

from medserve_images.errors import ImageRefused
from medserve_images.reader import FileInfo, ImageReader, Pixels
from medserve_images.spacing import Spacing
from medserve_images.target import ImageLimits, Target
from medserve_images.warning import ImageWarning

__all__ = ["FileInfo", "ImageLimits", "ImageReader", "ImageRefused", "ImageWarning", "Pixels", "Spacing", "Target"]
