"""The error for images that are refused."""

from typing import Literal

Part = Literal["encoded", "frame"]
Limit = Literal["pixels", "decompression", "image_parts"]


class ImageRefused(Exception):
    """An image that cannot be read unambiguously, or that exceeds a limit.

    Attributes:
        reason: The problem and what was expected, as a predicate: "is a TIFF ...". It quotes nothing from the file
            except numbers that describe its pixels.
        part: What is invalid: the encoded file, or the requested frame number.
        limit: The limit that was exceeded; None if the file itself is invalid.
    """

    def __init__(self, reason: str, part: Part = "encoded", limit: Limit | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.part = part
        self.limit = limit
