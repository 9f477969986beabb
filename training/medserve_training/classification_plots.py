"""Pictures of a classifier's quality: ROC curve, confusion matrix, calibration."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray
from scipy.stats import binomtest
from sklearn.metrics import auc, confusion_matrix, roc_curve

from medserve_proto.v1 import manifest_pb2 as pb
from medserve_training.classification_metrics import classification_metrics

Floats = NDArray[np.float64]
Labels = NDArray[np.int64]
# Of each split: probabilities [n, classes] and labels [n].
Predicted = Mapping[str, tuple[Floats, Labels]]


def plot_classification(
    predicted: Predicted, names: Sequence[str], points: Sequence[pb.OperatingPoint], folder: Path
) -> list[Path]:
    """Writes roc.png, confusion.png, calibration.png and, with two classes, decision_curve.png.

    Args:
        predicted: For each split, probabilities and labels; the confusion matrix is that of the last split.
        names: Of the classes.
        points: Thresholds on the second class to mark; the first one decides in the confusion matrix.
        folder: Where to.

    Returns:
        The files written.
    """
    figures = {
        "roc": _roc(predicted, names, points),
        "confusion": _confusion(predicted, names, points),
        "calibration": _calibration(predicted, names),
    }
    if len(names) == 2:
        figures["decision_curve"] = _decision_curve(predicted, names)
    paths = []
    for name, figure in figures.items():
        path = folder / f"{name}.png"
        figure.savefig(path, dpi=120)
        paths.append(path)
    return paths


def _roc(predicted: Predicted, names: Sequence[str], points: Sequence[pb.OperatingPoint]) -> Figure:
    figure = Figure(figsize=(6, 6), layout="constrained")
    axes = figure.subplots()
    axes.plot([0, 1], [0, 1], color="0.7", linestyle=":", label="chance")
    if len(names) == 2:
        for split, (probabilities, labels) in predicted.items():
            false, true, thresholds = roc_curve(labels, probabilities[:, 1], drop_intermediate=False)
            area = classification_metrics(probabilities, labels, None)[0]
            interval = f"[{area.interval.low:.3f}, {area.interval.high:.3f}]"
            (line,) = axes.plot(false, true, label=f"{split}, n = {len(labels)}: AUC {area.value:.3f} {interval}")
            for point, marker in zip(points, "osD^v", strict=False):
                at = np.flatnonzero(thresholds >= point.threshold)[-1]
                text = f"{split}, {point.name} (p ≥ {point.threshold:.3f})"
                axes.plot(false[at], true[at], marker, color=line.get_color(), label=text)
        axes.set_title(f"ROC curve of {names[1]}; 95 % intervals by bootstrap")
    else:
        split, (probabilities, labels) = list(predicted.items())[-1]
        for index, name in enumerate(names):
            false, true, _ = roc_curve(labels == index, probabilities[:, index])
            axes.plot(false, true, label=f"{name}: AUC {auc(false, true):.3f}")
        axes.set_title(f"ROC curve of each class against the rest, {split}, n = {len(labels)}")
    axes.set(xlabel="1 - specificity", ylabel="sensitivity", xlim=(-0.01, 1.01), ylim=(-0.01, 1.01), aspect="equal")
    axes.legend(loc="lower right", fontsize="small")
    return figure


def _confusion(predicted: Predicted, names: Sequence[str], points: Sequence[pb.OperatingPoint]) -> Figure:
    split, (probabilities, labels) = list(predicted.items())[-1]
    decision, rule = probabilities.argmax(axis=1), "most probable class"
    if points:
        threshold = points[0].threshold
        decision = (probabilities[:, 1] >= threshold).astype(np.int64)
        rule = f"{points[0].name}, p ≥ {threshold:.3f}"
    counts = confusion_matrix(labels, decision, labels=range(len(names)))
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    size = 3 + 0.6 * max(len(names), 3)
    figure = Figure(figsize=(size, size), layout="constrained")
    axes = figure.subplots()
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    for row, column in np.ndindex(*counts.shape):
        color = "white" if shares[row, column] > 0.5 else "black"
        text = f"{counts[row, column]}" + (f"\n{shares[row, column]:.1%}" if len(names) == 2 else "")
        axes.text(column, row, text, ha="center", va="center", color=color)
    ticks = range(len(names))
    axes.set_xticks(ticks, names, rotation=0 if len(names) == 2 else 45, ha="center" if len(names) == 2 else "right")
    axes.set_yticks(ticks, names)
    axes.set(xlabel="decision", ylabel="truth")
    axes.set_title(f"{split}, n = {len(labels)}\n{rule}", fontsize="medium")
    return figure


def _calibration(predicted: Predicted, names: Sequence[str]) -> Figure:
    figure = Figure(figsize=(6, 7), layout="constrained")
    upper, lower = figure.subplots(2, height_ratios=[3, 1], sharex=True)
    upper.plot([0, 1], [0, 1], color="0.7", linestyle=":", label="perfect")
    for split, (probabilities, labels) in predicted.items():
        if len(names) == 2:
            score, hit = probabilities[:, 1], labels == 1
        else:
            score, hit = probabilities.max(axis=1), probabilities.argmax(axis=1) == labels
        mean, observed, low, high = np.array(_bins(score, hit)).T
        upper.errorbar(
            mean, observed, [observed - low, high - observed], fmt="o-", capsize=3, label=f"{split}, n = {len(labels)}"
        )
        lower.hist(score, bins=np.linspace(0, 1, 11), histtype="step", linewidth=1.5)
    what = f"probability of {names[1]}" if len(names) == 2 else "probability of the most probable class"
    share = f"share of {names[1]}" if len(names) == 2 else "share of right decisions"
    upper.set(ylabel=f"observed {share}", ylim=(-0.03, 1.03), title="Calibration in ten bins, 95 % intervals (Wilson)")
    upper.legend(loc="upper left")
    lower.set(xlabel=f"predicted {what}", ylabel="number", yscale="log")
    return figure


def net_benefit(scores: Floats, labels: Labels, threshold: float) -> float:
    """True positives less false ones at the odds of the threshold, as parts of all (Vickers & Elkin 2006)."""
    positive = scores >= threshold
    true, false = (positive & (labels == 1)).mean(), (positive & (labels == 0)).mean()
    return float(true - false * threshold / (1 - threshold))


def _decision_curve(predicted: Predicted, names: Sequence[str]) -> Figure:
    figure = Figure(figsize=(6, 4.5), layout="constrained")
    axes = figure.subplots()
    thresholds = np.linspace(0.01, 0.99, 99)
    for index, (split, (probabilities, labels)) in enumerate(predicted.items()):
        curves = {"model": probabilities[:, 1], f"all {names[1]}": np.ones(len(labels))}
        for (name, scores), style in zip(curves.items(), "-:", strict=True):
            benefits = [net_benefit(scores, labels, threshold) for threshold in thresholds]
            axes.plot(thresholds, benefits, f"C{index}{style}", label=f"{split}, n = {len(labels)}: {name}")
    axes.axhline(0, color="0.7", linestyle=":", label=f"all {names[0]}")
    axes.set(xlabel="threshold on the probability", ylabel="net benefit", ylim=(-0.05, None), title="Decision curve")
    axes.legend(fontsize="small")
    return figure


def _bins(score: Floats, hit: NDArray[np.bool_]) -> list[tuple[float, ...]]:
    """Mean score, share of hits and the bounds of its interval, for each tenth of the range that holds any."""
    bins = np.minimum((score * 10).astype(int), 9)
    points: list[tuple[float, ...]] = []
    for index in np.unique(bins):
        members = bins == index
        hits, number = int(hit[members].sum()), int(members.sum())
        interval = binomtest(hits, number).proportion_ci(method="wilson")
        points.append((float(score[members].mean()), hits / number, interval.low, interval.high))
    return points
