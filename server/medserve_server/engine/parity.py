"""Checks a session's numerical parity with PyTorch on the manifest's reference rows."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from medserve_proto.v1.manifest_pb2 import Manifest
from medserve_server.engine.manifest.reader import main_output
from medserve_server.engine.manifest.segmentation import REFERENCE_STEP
from medserve_server.engine.session import Session

Values = NDArray[np.generic]
Expected = NDArray[np.float64]


def deviation(session: Session, manifest: Manifest) -> float | None:
    """Returns the largest absolute difference of a probability from the reference; None without reference rows."""
    if not manifest.reference:
        return None
    segments = manifest.WhichOneof("task") == "image_segmentation"
    answers = _maps(session, manifest) if segments else [_rows(session, manifest)]
    worst = float(np.max([np.max(np.abs(found.astype(np.float64) - expected)) for found, expected in answers]))
    return worst if np.isfinite(worst) else float("inf")


def _rows(session: Session, manifest: Manifest) -> tuple[Values, Expected]:
    """Returns the session's output for all reference rows, and the reference."""
    (spec,) = session.inputs
    name = main_output(manifest)
    rows: Values
    if manifest.WhichOneof("task") == "image_classification":
        rows = np.stack([np.frombuffer(row.pixels, np.uint8) for row in manifest.reference])
    else:
        rows = np.array([row.features for row in manifest.reference], np.float32)
    outputs = session.run({spec.name: rows.reshape(-1, *spec.shape[1:])}, [name])
    return outputs[name], np.array([row.probabilities for row in manifest.reference])


def _maps(session: Session, manifest: Manifest) -> Iterator[tuple[Values, Expected]]:
    """Yields the session's output for each reference image, at every eighth row and column, and the reference."""
    (spec,) = session.inputs
    for row in manifest.reference:
        image = np.frombuffer(row.pixels, np.uint8).reshape(1, row.size.height, row.size.width, -1)
        probabilities = session.run({spec.name: image}, ["probabilities"])["probabilities"]
        yield probabilities[0, :, ::REFERENCE_STEP, ::REFERENCE_STEP].ravel(), np.array(row.probabilities)
