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
from medserve_training.card.svg import draw, labelled
from medserve_training.data.splits import Images, Splits
from medserve_training.export.inference import open_session, predict
from medserve_training.export.remeasure import Measured
from medserve_training.plots.classification import quality_figures

Floats = NDArray[np.float64]
_CAPTIONS = {
    "roc": "ROC curve: the share of the ill that is found against the share of the healthy that is flagged.",
    "precision_recall": "Precision and recall; dotted: the share of positives in the split.",
    "calibration": "Of the pictures with such a probability, how many were: on the diagonal is right. Below: how many "
    "pictures.",
    "decision_curve": "Net benefit of acting on the model, on everybody, on nobody, by the probability at which one "
    "would act (Vickers & Elkin 2006): the model is of use where it is the highest.",
}


def interface(manifest: pb.Manifest) -> list[Block]:
    """What goes in, and what comes out."""
    task = manifest.image_classification
    color = pb.ColorSpace.Name(task.input.color_space).removeprefix("COLOR_SPACE_").replace("GRAY", "grey")
    return [
        (
            f"In: a picture, brought to {task.input.width} by {task.input.height} pixels, {color}. Out: the "
            f"probability of {_either(task.labels)}."
        ),
    ]


def _either(names: Sequence[str]) -> str:
    return f"{', '.join(names[:-1])} or {names[-1]}" if len(names) > 1 else names[0]


def sizes(manifest: pb.Manifest, data: Splits[Images]) -> Table:
    """How many pictures of each class are in each split."""
    labels = manifest.image_classification.labels
    rows = []
    for split in ("train", "validation", "test"):
        part = data.part(split)
        counts = np.bincount(part.labels, minlength=len(labels))
        cells = [_count(count, len(part.labels)) for count in counts.tolist()]
        rows.append([split, f"{len(part.labels):,}", *cells])
    note = "A training picture that validation or test holds too, pixel for pixel, is left out."
    return Table(["split", "pictures", *labels], rows, note)


def _count(number: int, of: int) -> str:
    return f"{number:,} ({percent(number / max(of, 1))})"


def found(path: Path, measured: Measured, data: Splits[Images], alarms: Mapping[str, float]) -> list[Section]:
    """What was found on validation and test."""
    task = measured.fresh.image_classification
    session = open_session(path)
    predicted = {split: (output, data.part(split).labels) for split, output in measured.output.items()}
    drawn = draw(partial(quality_figures, predicted, task.labels, task.operating_points), "quality")
    pictures = {name: Picture(labelled(svg, _CAPTIONS[name]), _CAPTIONS[name]) for name, svg in drawn.items()}
    calibration = pictures.pop("calibration")
    probabilities, labels = predicted["test"]
    return [
        Section("Curves", [Pictures(list(pictures.values()))]),
        Section("Decisions", _decisions(task, probabilities, labels)),
        Section("Calibration", [*_calibration(task, measured.recipe.calibration.methods), Pictures([calibration])]),
        *_unfamiliar(task, alarms),
        *_uncertainty(task, session, data.test, probabilities),
        examples(measured.fresh, session, data.test),
    ]


def _decisions(task: pb.ImageClassificationTask, probabilities: Floats, labels: NDArray[np.int64]) -> list[Block]:
    blocks: list[Block] = []
    decision, rule = probabilities.argmax(axis=1), "the most probable label"
    if task.operating_points:
        point = next(entry for entry in task.operating_points if entry.name == task.default_operating_point)
        decision = (probabilities[:, 1] >= point.threshold).astype(np.int64)
        rule = f"{point.name}: {point.positive_label} from a probability of {point.threshold:.3f} on"
        rows = [_point_row(entry, probabilities[:, 1], labels) for entry in task.operating_points]
        head = ["threshold for", "p ≥", "sensitivity, validation", "specificity, validation", "sensitivity, test"]
        note = f"{point.name} is the default; a call may name another. On test: 95 % intervals (Wilson)."
        blocks.append(Table([*head, "specificity, test"], rows, note))
    counts = confusion_matrix(labels, decision, labels=range(len(task.labels)))
    matrix = [
        [label, *(_count(count, sum(row)) if len(row) == 2 else f"{count:,}" for count in row)]
        for label, row in zip(task.labels, counts.tolist(), strict=True)
    ]
    table = Table(
        ["truth", *(f"decided: {label}" for label in task.labels)],
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
                f"The probabilities are the network's own: of {tried}, no method was clearly better than none on "
                "validation, judged by its worst calibration error over several prevalences and with harder pictures."
            ),
        ]
    used = task.calibration
    return [
        (
            f"Method: {used.method}, chosen on {used.chosen_on}. Expected calibration error there before "
            f"{used.error_before:.3f}, after {used.error_after:.3f} (cross-fitted). {used.reason}"
        ),
    ]


def _unfamiliar(task: pb.ImageClassificationTask, alarms: Mapping[str, float]) -> list[Section]:
    if not task.HasField("novelty"):
        return []
    novelty = task.novelty
    rows = [[name.removeprefix("novelty warnings: "), percent(part)] for name, part in alarms.items()]
    text = (
        f"{novelty.method}. A picture with a score above {novelty.threshold:.4g} carries a warning; of the validation "
        f"split {percent(novelty.false_alarms)} do, by choice of the threshold."
    )
    note = (
        "On the test split a warning is wrong; on the others it is right. No warning does not mean a familiar picture."
    )
    return [Section("Unfamiliar pictures", [text, Table(["pictures", "with a warning"], rows, note)])]


def _uncertainty(
    task: pb.ImageClassificationTask, session: onnxruntime.InferenceSession, test: Images, probabilities: Floats
) -> list[Section]:
    if task.members < 2:
        return []
    members = predict(session, test.pixels, "member_probabilities")
    answer = probabilities.argmax(axis=1)
    spread = members.std(axis=1)[np.arange(len(answer)), answer]
    rows = []
    for name, rows_of in (("right", answer == test.labels), ("wrong", answer != test.labels)):
        if rows_of.any():
            middle, high = np.quantile(spread[rows_of], [0.5, 0.9])
            rows.append([name, f"{rows_of.sum():,}", f"{middle:.3f}", f"{high:.3f}"])
    text = (
        f"{task.members} networks answer together; their disagreement is the standard deviation of their probabilities "
        "of the most probable label."
    )
    note = "On test. A small disagreement is no proof: all members learned from the same pictures."
    return [Section("Uncertainty", [text, Table(["answers that are", "n", "median", "90th percentile"], rows, note)])]


def limits(manifest: pb.Manifest, data: Splits[Images]) -> list[str]:
    """What the model can't do, in plain words."""
    task = manifest.image_classification
    texts = [
        (
            f"The figures hold for pictures like these: {manifest.training.data}. Other devices, hospitals and "
            "patients give other figures, and nothing here says how far they fall."
        ),
        f"It sees {task.input.width} by {task.input.height} pixels; what is smaller than a pixel is not there.",
        f"It knows {_either(task.labels)} and nothing else: any other finding is answered as one of these.",
        "Intervals say how far chance moves a figure among pictures like these, and nothing of another place.",
        "The maps show what the answer responds to. They are no evidence of disease, nor of its absence.",
    ]
    if len(task.labels) == 2:
        shares = [percent(float(data.part(split).labels.mean())) for split in ("train", "validation", "test")]
        texts.append(
            f"{task.labels[1]} makes up {shares[0]} of training, {shares[1]} of validation and {shares[2]} of test; "
            "where it is rarer, more of the positive answers are wrong, and the probabilities are too high.",
        )
    if not any(entry.subgroup for entry in manifest.evaluations):
        texts.append("The data says nothing of age, sex or origin, so that no subgroup could be measured.")
    return texts
