"""Fills in what a risk manifest says about quality: used by `fit` and `evaluate`, and again by `verify`."""

from collections.abc import Sequence

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from medserve_proto.v1 import manifest_pb2 as pb
from medserve_training.inference import predict
from medserve_training.measure_images import set_evaluations
from medserve_training.risk_metrics import reference_risk, risk_metrics
from medserve_training.splits import Patients, Splits

# The last group's bound: the contract wants it above 1.
_ABOVE_ANY_RISK = 1.01


def measure_patients(
    manifest: pb.Manifest, session: onnxruntime.InferenceSession, data: Splits[Patients], splits: Sequence[str]
) -> dict[str, NDArray[np.float64]]:
    """Cuts the risk groups on training and evaluates some splits, in place.

    Args:
        manifest: Names times, horizons and groups.
        session: The model.
        data: The patients.
        splits: "validation", and "test" where it is time for that.

    Returns:
        Survival in each split, [n, curve times].
    """
    task = manifest.patient_risk
    risk = reference_risk(predict(session, data.train.features).astype(np.float64), task)
    cuts = np.quantile(risk, np.arange(1, len(task.risk_groups)) / len(task.risk_groups))
    for group, bound in zip(task.risk_groups, [*cuts, _ABOVE_ANY_RISK], strict=True):
        group.risk_below = bound
    output = {split: predict(session, data.part(split).features).astype(np.float64) for split in splits}
    metrics = {split: risk_metrics(survival, data.train, data.part(split), task) for split, survival in output.items()}
    set_evaluations(manifest, metrics, {split: len(rows) for split, rows in output.items()})
    return output
