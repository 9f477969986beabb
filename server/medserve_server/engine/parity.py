"""Checks a session's numerical parity with PyTorch on the manifest's reference rows."""

import numpy as np
from numpy.typing import NDArray

from medserve_proto.v1.manifest_pb2 import Manifest
from medserve_server.engine.manifest import main_output
from medserve_server.engine.session import Session


def deviation(session: Session, manifest: Manifest) -> float | None:
    """Returns the largest absolute difference of a probability from the reference; None without reference rows."""
    if not manifest.reference:
        return None
    (spec,) = session.inputs
    name = main_output(manifest)
    rows: NDArray[np.generic]
    if manifest.WhichOneof("task") == "image_classification":
        rows = np.stack([np.frombuffer(row.pixels, np.uint8) for row in manifest.reference])
    else:
        rows = np.array([row.features for row in manifest.reference], np.float32)
    expected = np.array([row.probabilities for row in manifest.reference])
    outputs = session.run({spec.name: rows.reshape(-1, *spec.shape[1:])}, [name])
    found = np.asarray(outputs[name], np.float64)
    worst = float(np.max(np.abs(found - expected)))
    return worst if np.isfinite(worst) else float("inf")
