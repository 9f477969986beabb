"""Paths that training reads from and writes to."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class RunPaths:
    """The data folder, the destination of the model file, and the report folder."""

    data_dir: Path
    model: Path
    report: Path
