"""Recomputes a manifest's figures from its ONNX file, with ONNX Runtime alone."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from medserve_proto.v1 import manifest_pb2 as pb
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
    compared = [Comparison(name, stated.get(name), recomputed.get(name)) for name in {**stated, **recomputed}]
    return [*compared, *_compare_curves(measured.manifest, measured.fresh)]


def _compare_curves(manifest: pb.Manifest, fresh: pb.Manifest) -> Iterator[Comparison]:
    """Yields the largest difference of each threshold curve of the manifest, stated as 0; older files have none."""
    recomputed = {_key(curve): _values(curve) for curve in fresh.image_classification.threshold_curves}
    for curve in manifest.image_classification.threshold_curves:
        stated, other = _values(curve), recomputed.get(_key(curve))
        difference = None
        if other is not None and other.shape == stated.shape:
            difference = float(np.abs(other - stated).max())
        label, split = _key(curve)
        yield Comparison(f"{split}: threshold curve of {label}, largest difference", 0.0, difference)


def _key(curve: pb.ThresholdCurve) -> tuple[str, str]:
    return curve.positive_label, curve.split


def _values(curve: pb.ThresholdCurve) -> NDArray[np.float64]:
    return np.array([curve.thresholds, curve.sensitivities, curve.specificities])
