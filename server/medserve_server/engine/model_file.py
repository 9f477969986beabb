"""The file of a model as it is loaded, and the name of the list of such files."""

from dataclasses import dataclass
from pathlib import Path

CHECKSUMS_FILE = "SHA256SUMS"


@dataclass(frozen=True, slots=True)
class ModelFile:
    """The bytes of a model, read once: what was checked is what is loaded."""

    path: Path
    content: bytes
    sha256: str
    self_contained: bool
    """Whether it may have no external data: it is listed or signed, and what lies beside it is neither."""

    @property
    def weight_bytes(self) -> int:
        """Bytes of the file, and of those beside it that it names as its external data."""
        if self.self_contained:
            return len(self.content)
        beside = [each for each in self.path.parent.iterdir() if each != self.path]
        return len(self.content) + sum(each.stat().st_size for each in beside if each.name.encode() in self.content)
