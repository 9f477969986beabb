"""Where a model's figures come from."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Source:
    """A model file and the data that its manifest speaks of.

    Attributes:
        path: The ONNX file.
        data: Data spec.
        recipe: Packaged name or path of the recipe, for the split; by default the manifest's.
        data_dir: Where MedMNIST's files lie.
    """

    path: Path
    data: str
    recipe: str | None
    data_dir: Path
