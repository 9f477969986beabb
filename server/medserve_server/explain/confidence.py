"""How far a result can be trusted: the spread of an ensemble's members, and how unlike the training data an input is.

Every request asks for these, whether or not it asks for reasons: the warning that nobody asked for is the one that
matters, and requests with equal outputs share batches.
"""

import numpy as np
from numpy.typing import NDArray

from medserve_proto.v1.manifest_pb2 import ImageClassificationTask, Novelty, PatientRiskTask


def confidence_outputs(task: ImageClassificationTask | PatientRiskTask, members: str) -> tuple[str, ...]:
    """Names of the outputs to ask for; `members` is that of the ensemble's."""
    names = (members,) if task.members > 1 else ()
    return (*names, "novelty") if task.HasField("novelty") else names


def spread(members: NDArray[np.generic]) -> NDArray[np.generic]:
    """Standard deviation over the members, float32 [rows, members, ...] to [rows, ...]."""
    mean = np.add.reduce(members, axis=1, keepdims=True) / members.shape[1]
    far = members - mean
    return np.sqrt(np.add.reduce(far * far, axis=1) / members.shape[1])  # type: ignore[no-any-return]  # a ufunc's


def unfamiliar(score: float, novelty: Novelty, kind: str) -> str | None:
    """The warning about an input that is unlike those of the training data; None where it is like them."""
    if score <= novelty.threshold:
        return None
    return (
        f"unlike the {kind} that the model was trained on: novelty {score:.3g}, expected up to {novelty.threshold:.3g}"
    )
