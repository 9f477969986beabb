"""Confidence measures: the standard deviation over ensemble members, and novelty with respect to the training data.

Both are computed for every request, with or without reasons: warnings must not depend on being asked for, and requests
with equal outputs share batches.
"""

import numpy as np
from numpy.typing import NDArray

from medserve_proto.v1.manifest_pb2 import ImageClassificationTask, Novelty, PatientRiskTask


def confidence_outputs(task: ImageClassificationTask | PatientRiskTask, members: str) -> tuple[str, ...]:
    """Returns the names of the outputs to compute; `members` is the name of the ensemble output."""
    names = (members,) if task.members > 1 else ()
    return (*names, "novelty") if task.HasField("novelty") else names


def spread(members: NDArray[np.generic]) -> NDArray[np.generic]:
    """Returns the standard deviation over ensemble members, from float32 [rows, members, ...] to [rows, ...]."""
    mean = np.add.reduce(members, axis=1, keepdims=True) / members.shape[1]
    difference = members - mean
    return np.sqrt(np.add.reduce(difference * difference, axis=1) / members.shape[1])  # type: ignore[no-any-return]


def unfamiliar(score: float, novelty: Novelty, kind: str) -> str | None:
    """Returns a warning if the novelty score exceeds the manifest's threshold, else None."""
    if score <= novelty.threshold:
        return None
    return (
        f"unlike the {kind} that the model was trained on: novelty {score:.3g}, expected up to {novelty.threshold:.3g}"
    )
