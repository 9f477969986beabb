"""The contents of a model file, and the name of the repository's checksum file."""

from dataclasses import dataclass
from pathlib import Path

CHECKSUMS_FILE = "SHA256SUMS"


@dataclass(frozen=True, slots=True)
class ModelFile:
    """The bytes of a model, read once, so that the bytes that were verified are the bytes that are loaded."""

    path: Path
    content: bytes
    sha256: str
    self_contained: bool
    """Whether external data is disallowed, since the model is verified by a checksum or signature that does not cover
    it."""

    @property
    def weight_bytes(self) -> int:
        """Size in bytes of the model file and of the external data files that it names."""
        if self.self_contained:
            return len(self.content)
        others = [each for each in self.path.parent.iterdir() if each != self.path]
        return len(self.content) + sum(each.stat().st_size for each in others if each.name.encode() in self.content)
