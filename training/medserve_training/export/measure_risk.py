"""Evaluates a survival model into its manifest, for `fit`, `evaluate` and `verify`."""

from collections.abc import Iterator, Sequence

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from medserve_proto.v1 import manifest_pb2 as pb
from medserve_training.data.splits import Patients, Splits, take
from medserve_training.export.inference import predict
from medserve_training.export.manifest import SPLITS
from medserve_training.metrics.risk import reference_risk, risk_metrics

# Bound of the last risk group, which the manifest requires to be above 1.
_ABOVE_ANY_RISK = 1.01
# Fraction of the training split that the novelty threshold flags.
FALSE_ALARMS = 0.01
# Minimum number of events for metrics of a split or a subgroup.
FEWEST_EVENTS = 10


def measure_patients(
    manifest: pb.Manifest,
    session: onnxruntime.InferenceSession,
    data: Splits[Patients],
    splits: Sequence[str],
    subgroups: Sequence[str],
) -> dict[str, NDArray[np.float64]]:
    """Sets the bounds of risk groups and the novelty threshold on training, and evaluates splits, in place.

    Args:
        manifest: Names times, horizons and groups and receives the results. Evaluations on other data are kept.
        session: The model.
        data: The patients.
        splits: "validation", and "test" for the final evaluation.
        subgroups: Covariates by which the test split is also evaluated in subgroups.

    Returns:
        The survival functions of each split, [n, curve times].
    """
    task = manifest.patient_risk
    risk = reference_risk(predict(session, data.train.features).astype(np.float64), task)
    cuts = np.quantile(risk, np.arange(1, len(task.risk_groups)) / len(task.risk_groups))
    for group, bound in zip(task.risk_groups, [*cuts, _ABOVE_ANY_RISK], strict=True):
        group.risk_below = bound
    if task.HasField("novelty"):
        _set_novelty(task.novelty, session, data)
    others = [evaluation for evaluation in manifest.evaluations if evaluation.split not in SPLITS]
    output = {split: predict(session, data.part(split).features).astype(np.float64) for split in splits}
    del manifest.evaluations[:]
    for split, survival in output.items():
        for subgroup, index in _parts(task, data, split, subgroups):
            rows = take(data.part(split), index)
            enough = rows.events.sum() >= FEWEST_EVENTS
            metrics = risk_metrics(survival[index], data.train, rows, task) if enough else []
            entry = pb.Evaluation(data=manifest.training.data, split=split, size=len(index), metrics=metrics)
            entry.subgroup = subgroup
            manifest.evaluations.append(entry)
    manifest.evaluations.extend(others)
    return output


def _set_novelty(novelty: pb.Novelty, session: onnxruntime.InferenceSession, data: Splits[Patients]) -> None:
    # The validation split is too small to estimate its 99th percentile.
    novelty.threshold = float(np.quantile(predict(session, data.train.features, "novelty"), 1 - FALSE_ALARMS))
    novelty.false_alarms = float((predict(session, data.validation.features, "novelty") > novelty.threshold).mean())


def _parts(
    task: pb.PatientRiskTask, data: Splits[Patients], split: str, subgroups: Sequence[str]
) -> Iterator[tuple[str, NDArray[np.intp]]]:
    """Yields "" and the rows of a split and, for the test split, each subgroup and its rows."""
    rows = data.part(split)
    yield "", np.arange(len(rows.times))
    for position, feature in enumerate(task.features):
        if split != "test" or feature.name not in subgroups:
            continue
        values = rows.features[:, position]
        if feature.WhichOneof("kind") == "categorical":
            for index, name in enumerate(feature.categorical.names):
                yield f"{feature.name} {name}", np.flatnonzero(values == index)
        else:
            middle = float(np.nanmedian(data.train.features[:, position]))
            unit = f" {feature.unit}" if feature.unit else ""
            yield f"{feature.name} below {middle:g}{unit}", np.flatnonzero(values < middle)
            yield f"{feature.name} {middle:g}{unit} or more", np.flatnonzero(values >= middle)
