"""Why an image is not read."""

from typing import Literal

Part = Literal["encoded", "frame"]
Limit = Literal["pixels", "decompression", "image_parts"]


class ImageRefused(Exception):
    """An image that cannot be read without doubt, or that exceeds a limit.

    Attributes:
        reason: What the image is and what was expected, as a predicate: "is a TIFF ...". It repeats nothing of the
            file but numbers that describe its pixels.
        part: What is wrong: the encoded file, or the number of the frame that was asked for.
        limit: The limit that was exceeded; None where the file itself is wrong.
    """

    def __init__(self, reason: str, part: Part = "encoded", limit: Limit | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.part = part
        self.limit = limit
