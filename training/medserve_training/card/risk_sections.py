"""Sections of a survival model's card."""

from functools import partial
from pathlib import Path

import numpy as np
import onnxruntime
from markupsafe import Markup
from matplotlib.figure import Figure
from numpy.typing import NDArray

from medserve_proto.v1 import manifest_pb2 as pb
from medserve_training.card.parts import Block, Picture, Pictures, Section, Table, percent
from medserve_training.card.svg import draw, labeled
from medserve_training.data.splits import Patients, Splits
from medserve_training.export.inference import open_session, predict
from medserve_training.export.remeasure import Measured
from medserve_training.plots.risk import over_time, quality_figures

Floats = NDArray[np.float64]


def interface(manifest: pb.Manifest) -> list[Block]:
    """Describes the model's input and output."""
    task = manifest.patient_risk
    horizons = ", ".join(horizon.label for horizon in task.horizons)
    last = task.curve_times[-1]
    text = (
        f"Output: the probability of {task.event} by each of {len(task.curve_times) - 1} times up to {last:g} "
        f"{task.time_unit}; risks by {horizons}; a risk group from the risk by {task.reference_horizon}. Input:"
    )
    rows = [_covariate(feature) for feature in task.features]
    note = "Values outside the accepted range are rejected; values outside the training range produce a warning."
    head = ["covariate", "description", "unit or values", "accepted range", "training range", "if missing"]
    return [text, Table(head, rows, note)]


def _covariate(feature: pb.Feature) -> list[str]:
    missing = "rejected"
    if feature.WhichOneof("kind") == "categorical":
        names = feature.categorical.names
        if feature.WhichOneof("missing") == "imputed_as":
            missing = f"imputed as {names[round(feature.imputed_as)]}"
        return [feature.name, feature.description, ", ".join(names), "", "", missing]
    if feature.WhichOneof("missing") == "imputed_as":
        missing = f"imputed as {feature.imputed_as:g}"
    number = feature.numeric
    accepted = f"{number.valid_min:g} to {number.valid_max:g}"
    seen = f"{number.training_min:g} to {number.training_max:g}"
    return [feature.name, feature.description, feature.unit, accepted, seen, missing]


def sizes(data: Splits[Patients]) -> Table:
    """Returns the number of patients and events in each split."""
    rows = []
    for split in ("train", "validation", "test"):
        part = data.part(split)
        events = int(part.events.sum())
        number = len(part.times)
        rows.append([split, f"{number:,}", f"{events:,} ({percent(events / number)})", f"{np.median(part.times):g}"])
    return Table(["split", "patients", "events", "median follow-up, all"], rows)


def found(path: Path, measured: Measured, data: Splits[Patients]) -> list[Section]:
    """Returns the sections about the model's performance on the test split."""
    task = measured.fresh.patient_risk
    survival = measured.output["test"]
    session = open_session(path)
    drawn = draw(partial(quality_figures, survival, data.test, "test", task), "quality")
    later = draw(partial(over_time, survival, data.train, data.test, "test", task), "time")
    groups = (
        f"Survival by risk group on the test split: predicted and observed (Kaplan-Meier), with the numbers at risk. "
        f"The groups are quantiles of the risk by {task.reference_horizon} in the training split."
    )
    calibration = (
        "Observed against predicted risk in quarters of the test split; perfect calibration is on the diagonal."
    )
    captions = {
        "auroc": "Discrimination between patients with and without an event by a time (cumulative/dynamic AUC).",
        "brier": "Mean squared error of the predicted survival (Brier score, weighted for censoring), compared with "
        "predicting the cohort's survival curve for every patient.",
    }
    panels = [_picture(svg, calibration) for name, svg in drawn.items() if name != "risk_groups"]
    return [
        Section("Survival by risk group", [Pictures([_picture(drawn["risk_groups"], groups)])]),
        Section("Calibration", [Pictures(panels)]),
        Section("Over time", [Pictures([_picture(svg, captions[name]) for name, svg in later.items()])]),
        *_unfamiliar(task, session, data.test),
        *_uncertainty(task, session, data.test, survival),
        *_made_up(task, session),
    ]


def _unfamiliar(task: pb.PatientRiskTask, session: onnxruntime.InferenceSession, test: Patients) -> list[Section]:
    if not task.HasField("novelty"):
        return []
    novelty = task.novelty
    warned = float((predict(session, test.features, "novelty") > novelty.threshold).mean())
    text = (
        f"{novelty.method}. A patient with a score above {novelty.threshold:.4g} is returned with a warning. These are "
        f"{percent(novelty.false_alarms)} of the validation split and {percent(warned)} of the test split, all false "
        "alarms, since they are of the same cohort. The absence of a warning does not show that a patient resembles "
        "the training data."
    )
    return [Section("Unfamiliar patients", [text])]


def _uncertainty(
    task: pb.PatientRiskTask, session: onnxruntime.InferenceSession, test: Patients, survival: Floats
) -> list[Section]:
    if task.members < 2:
        return []
    spread = predict(session, test.features, "member_survival").std(axis=1)
    rows = []
    for horizon in task.horizons:
        column = list(task.curve_times).index(horizon.time)
        middle, high = np.quantile(spread[:, column], [0.5, 0.9])
        rows.append([horizon.label, f"{(1 - survival[:, column]).mean():.3f}", f"{middle:.3f}", f"{high:.3f}"])
    text = (
        f"The model is an ensemble of {task.members} networks; their disagreement is the standard deviation of their "
        "risks."
    )
    note = "On test. It is not a confidence interval of the risk: all members learned from the same patients."
    head = ["risk by", "mean risk", "disagreement, median", "disagreement, 90th percentile"]
    return [Section("Uncertainty", [text, Table(head, rows, note)])]


def _made_up(task: pb.PatientRiskTask, session: onnxruntime.InferenceSession) -> list[Section]:
    if not task.background:
        return []
    rows = np.array([patient.features for patient in task.background], dtype=np.float32)
    survival = predict(session, rows)
    members = predict(session, rows, "member_survival") if task.members > 1 else survival[:, np.newaxis]
    caption = "Predicted survival of the four patients; the bands are ± one standard deviation of the members."
    (svg,) = draw(lambda: {"made_up": _curves(task, survival, members.std(axis=1))}, "patients").values()
    names = [chr(ord("A") + index) for index in range(len(rows))]
    table = Table(
        ["covariate", *names],
        [
            [feature.name, *(_formatted(feature, float(value)) for value in rows[:, index])]
            for index, feature in enumerate(task.features)
        ],
        "They are also the background of explanations: Shapley values are relative to their mean risk.",
    )
    return [Section("Synthetic patients", [table, Pictures([_picture(svg, caption)])])]


def _formatted(feature: pb.Feature, value: float) -> str:
    if feature.WhichOneof("kind") == "categorical":
        return feature.categorical.names[round(value)]
    return f"{value:g} {feature.unit}".strip()


def _curves(task: pb.PatientRiskTask, survival: NDArray[np.float32], spread: NDArray[np.float32]) -> Figure:
    figure = Figure(figsize=(4.4, 3.6), layout="constrained")
    axes = figure.subplots()
    for index, (curve, width) in enumerate(zip(survival, spread, strict=True)):
        axes.plot(task.curve_times, curve, marker="os^D"[index % 4], markersize=4, label=chr(ord("A") + index))
        axes.fill_between(task.curve_times, curve - width, curve + width, alpha=0.2, linewidth=0)
    axes.set(xlabel=f"time in {task.time_unit}", ylabel=f"no {task.event}", ylim=(0, 1.02))
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small")
    return figure


def _picture(svg: Markup, caption: str) -> Picture:
    return Picture(labeled(svg, caption), caption)


def limits(manifest: pb.Manifest, data: Splits[Patients]) -> list[str]:
    """Returns the model's limitations, in plain language."""
    task, test = manifest.patient_risk, data.test
    texts = [
        (
            f"The test split has {len(test.times):,} patients and {test.events.sum():,} events: its intervals are "
            "wide, and another split would give other figures. Cross-validated figures, where given, are more reliable."
        ),
        (
            f"The figures apply to patients like these: {manifest.training.data}. Performance in other periods, with "
            "other treatments and at other sites differs."
        ),
        f"It makes no prediction beyond {task.curve_times[-1]:g} {task.time_unit}.",
        "It has learned associations, not causes: its predictions do not tell what effect a treatment would have.",
        (
            "A missing value is imputed with the training median or mode, with a warning; the more values are missing, "
            "the less specific the risk is to the patient."
        ),
    ]
    if any(entry.subgroup for entry in manifest.evaluations):
        texts.append("The subgroups are small: the figures cannot show that the model performs equally in all of them.")
    return texts
