"""Sections of an image classifier's card."""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from scipy.stats import binomtest
from sklearn.metrics import confusion_matrix

from medserve_proto.v1 import manifest_pb2 as pb
from medserve_training.card.map_pictures import examples
from medserve_training.card.parts import Block, Picture, Pictures, Section, Table, interval, percent
from medserve_training.card.svg import draw, labeled
from medserve_training.data.splits import Images, Splits
from medserve_training.export.inference import open_session, predict
from medserve_training.export.remeasure import Measured
from medserve_training.plots.classification import quality_figures

Floats = NDArray[np.float64]
_CAPTIONS = {
    "roc": "ROC curve: sensitivity (true positive rate) against 1 - specificity (false positive rate).",
    "precision_recall": "Precision-recall curve; dotted: the prevalence in the split.",
    "calibration": "Reliability diagram: observed frequency against predicted probability; perfect calibration is on "
    "the diagonal. Below: number of images.",
    "decision_curve": "Decision curve: net benefit of treating by the model, treating all and treating none, by "
    "threshold probability (Vickers & Elkin 2006). The model is useful where its net benefit is the highest.",
}


def interface(manifest: pb.Manifest) -> list[Block]:
    """Describes the model's input and output."""
    task = manifest.image_classification
    color = pb.ColorSpace.Name(task.input.color_space).removeprefix("COLOR_SPACE_").replace("GRAY", "grayscale")
    return [
        (
            f"Input: an image, resized to {task.input.width} by {task.input.height} pixels, {color}. Output: the "
            f"probability of {_either(task.labels)}."
        ),
    ]


def _either(names: Sequence[str]) -> str:
    return f"{', '.join(names[:-1])} or {names[-1]}" if len(names) > 1 else names[0]


def sizes(manifest: pb.Manifest, data: Splits[Images]) -> Table:
    """Returns the number of images of each class in each split."""
    labels = manifest.image_classification.labels
    rows = []
    for split in ("train", "validation", "test"):
        part = data.part(split)
        counts = np.bincount(part.labels, minlength=len(labels))
        cells = [_count(count, len(part.labels)) for count in counts.tolist()]
        rows.append([split, f"{len(part.labels):,}", *cells])
    note = "Training images that also occur, pixel for pixel, in validation or test were removed."
    return Table(["split", "images", *labels], rows, note)


def _count(number: int, of: int) -> str:
    return f"{number:,} ({percent(number / max(of, 1))})"


def found(path: Path, measured: Measured, data: Splits[Images], alarms: Mapping[str, float]) -> list[Section]:
    """Returns the sections about the model's performance on validation and test."""
    task = measured.fresh.image_classification
    session = open_session(path)
    predicted = {split: (output, data.part(split).labels) for split, output in measured.output.items()}
    drawn = draw(partial(quality_figures, predicted, task.labels, task.operating_points), "quality")
    pictures = {name: Picture(labeled(svg, _CAPTIONS[name]), _CAPTIONS[name]) for name, svg in drawn.items()}
    calibration = pictures.pop("calibration")
    probabilities, labels = predicted["test"]
    return [
        Section("Curves", [Pictures(list(pictures.values()))]),
        Section("Decisions", _decisions(task, probabilities, labels)),
        Section("Calibration", [*_calibration(task, measured.recipe.calibration.methods), Pictures([calibration])]),
        *_unfamiliar(task, alarms),
        *_uncertainty(task, session, data.test, probabilities),
        examples(measured, session, data.test),
    ]


def _decisions(task: pb.ImageClassificationTask, probabilities: Floats, labels: NDArray[np.int64]) -> list[Block]:
    blocks: list[Block] = []
    decision, rule = probabilities.argmax(axis=1), "decision: the most probable label"
    if task.operating_points:
        point = next(entry for entry in task.operating_points if entry.name == task.default_operating_point)
        decision = (probabilities[:, 1] >= point.threshold).astype(np.int64)
        rule = f"{point.name}: {point.positive_label} if its probability is at least {point.threshold:.3f}"
        rows = [_point_row(entry, probabilities[:, 1], labels) for entry in task.operating_points]
        head = ["operating point", "p ≥", "sensitivity, validation", "specificity, validation", "sensitivity, test"]
        note = f"{point.name} is the default; a request may select another. On test: 95 % intervals (Wilson)."
        blocks.append(Table([*head, "specificity, test"], rows, note))
    counts = confusion_matrix(labels, decision, labels=range(len(task.labels)))
    matrix = [
        [label, *(_count(count, sum(row)) if len(row) == 2 else f"{count:,}" for count in row)]
        for label, row in zip(task.labels, counts.tolist(), strict=True)
    ]
    table = Table(
        ["truth", *(f"predicted: {label}" for label in task.labels)],
        matrix,
        f"Confusion matrix, test, n = {len(labels):,}; {rule}.",
    )
    return [*blocks, table]


def _point_row(point: pb.OperatingPoint, scores: Floats, labels: NDArray[np.int64]) -> list[str]:
    positive = scores >= point.threshold
    hits = {1: positive[labels == 1], 0: ~positive[labels == 0]}
    cells = []
    for right in (hits[1], hits[0]):
        bounds = binomtest(int(right.sum()), len(right)).proportion_ci(method="wilson")
        cells.append(interval(float(right.mean()), bounds.low, bounds.high))
    return [point.name, f"{point.threshold:.3f}", f"{point.sensitivity:.3f}", f"{point.specificity:.3f}", *cells]


def _calibration(task: pb.ImageClassificationTask, methods: Sequence[str]) -> list[Block]:
    if not task.HasField("calibration"):
        tried = ", ".join(methods)
        return [
            (
                f"The probabilities are not recalibrated: of {tried}, no method was clearly better than none on "
                "validation, judged by its worst calibration error over several prevalences and with harder images."
            ),
        ]
    used = task.calibration
    return [
        (
            f"Method: {used.method}, chosen on {used.chosen_on}. Expected calibration error there: "
            f"{used.error_before:.3f} before, {used.error_after:.3f} after (cross-fitted). {used.reason}"
        ),
    ]


def _unfamiliar(task: pb.ImageClassificationTask, alarms: Mapping[str, float]) -> list[Section]:
    if not task.HasField("novelty"):
        return []
    novelty = task.novelty
    rows = [[name.removeprefix("novelty warnings: "), percent(part)] for name, part in alarms.items()]
    text = (
        f"{novelty.method}. An image with a score above {novelty.threshold:.4g} is returned with a warning; the "
        f"threshold was chosen so that {percent(novelty.false_alarms)} of the validation split are."
    )
    note = (
        "On the test split a warning is a false alarm; on the others it is correct. The absence of a warning does not "
        "show that an image resembles the training data."
    )
    return [Section("Unfamiliar images", [text, Table(["images", "with a warning"], rows, note)])]


def _uncertainty(
    task: pb.ImageClassificationTask, session: onnxruntime.InferenceSession, test: Images, probabilities: Floats
) -> list[Section]:
    if task.members < 2:
        return []
    members = predict(session, test.pixels, "member_probabilities")
    answer = probabilities.argmax(axis=1)
    spread = members.std(axis=1)[np.arange(len(answer)), answer]
    rows = []
    for name, rows_of in (("correct", answer == test.labels), ("wrong", answer != test.labels)):
        if rows_of.any():
            middle, high = np.quantile(spread[rows_of], [0.5, 0.9])
            rows.append([name, f"{rows_of.sum():,}", f"{middle:.3f}", f"{high:.3f}"])
    text = (
        f"The model is an ensemble of {task.members} networks; their disagreement is the standard deviation of their "
        "probabilities of the most probable label."
    )
    note = "On test. Low disagreement does not prove a prediction correct: all members learned from the same images."
    return [Section("Uncertainty", [text, Table(["predictions", "n", "median", "90th percentile"], rows, note)])]


def limits(manifest: pb.Manifest, data: Splits[Images]) -> list[str]:
    """Returns the model's limitations, in plain language."""
    task = manifest.image_classification
    texts = [
        (
            f"The figures apply to images like these: {manifest.training.data}. Performance with other devices, "
            "hospitals and patients differs, and by how much is unknown."
        ),
        f"It sees {task.input.width} by {task.input.height} pixels; finer detail is lost.",
        f"It distinguishes only {_either(task.labels)}: any other finding is classified as one of these.",
        "Intervals describe the sampling error on images like these, not the performance at another site.",
        "The maps show what the prediction responds to. They are not evidence of disease or of its absence.",
    ]
    if len(task.labels) == 2:
        shares = [percent(float(data.part(split).labels.mean())) for split in ("train", "validation", "test")]
        texts.append(
            f"The prevalence of {task.labels[1]} is {shares[0]} in training, {shares[1]} in validation and {shares[2]} "
            "in test; where it is lower, more of the positive predictions are wrong, and the probabilities are too "
            "high.",
        )
    if not any(entry.subgroup for entry in manifest.evaluations):
        texts.append("The data does not record age, sex or origin, so no subgroups could be evaluated.")
    return texts
