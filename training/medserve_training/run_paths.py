"""Where training reads and writes."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class RunPaths:
    """Where data lies, and where the model file and the report folder go."""

    data_dir: Path
    model: Path
    report: Path
