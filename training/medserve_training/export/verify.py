"""Recomputes a manifest's figures from its ONNX file, with ONNX Runtime alone."""

from dataclasses import dataclass

from medserve_training.export.manifest import figures
from medserve_training.export.origin import Source
from medserve_training.export.remeasure import measure_again

TOLERANCE = 1e-6


@dataclass(frozen=True)
class Comparison:
    """One figure as stated in the manifest and as recomputed; None where it is absent."""

    name: str
    stated: float | None
    recomputed: float | None

    @property
    def agrees(self) -> bool:
        """Whether the two differ by at most the tolerance."""
        if self.stated is None or self.recomputed is None:
            return False
        return abs(self.stated - self.recomputed) <= TOLERANCE


def verify(source: Source) -> list[Comparison]:
    """Recomputes every measured figure.

    Args:
        source: The model file and the data that its manifest names.

    Raises:
        UserError: A file is missing or corrupt, or the training split differs from the one the manifest names.
    """
    measured = measure_again(source)
    stated, recomputed = figures(measured.manifest), figures(measured.fresh)
    return [Comparison(name, stated.get(name), recomputed.get(name)) for name in {**stated, **recomputed}]
