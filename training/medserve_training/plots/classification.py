"""Plots of a classifier's performance: ROC and precision-recall curves, confusion matrix, calibration, net benefit."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import StrMethodFormatter
from numpy.typing import NDArray
from scipy.stats import binomtest
from sklearn.metrics import auc, average_precision_score, confusion_matrix, precision_recall_curve, roc_curve

from medserve_proto.v1 import manifest_pb2 as pb
from medserve_training.plots.style import STYLE

Floats = NDArray[np.float64]
Labels = NDArray[np.int64]
# Probabilities [n, classes] and labels [n] of each split.
Predicted = Mapping[str, tuple[Floats, Labels]]


def plot_classification(
    predicted: Predicted, names: Sequence[str], points: Sequence[pb.OperatingPoint], folder: Path
) -> list[Path]:
    """Writes roc.png, precision_recall.png, confusion.png, calibration.png and, with two classes, decision_curve.png.

    Args:
        predicted: Probabilities and labels of each split; the confusion matrix is that of the last split.
        names: Names of the classes.
        points: Operating points on the second class; the first one is marked, and used for the confusion matrix.
        folder: Output folder.

    Returns:
        The written files.
    """
    paths = []
    with rc_context(STYLE):
        figures = quality_figures(predicted, names, points) | {"confusion": _confusion(predicted, names, points)}
        for name, figure in figures.items():
            path = folder / f"{name}.png"
            figure.savefig(path, dpi=160)
            paths.append(path)
    return paths


def quality_figures(
    predicted: Predicted, names: Sequence[str], points: Sequence[pb.OperatingPoint]
) -> dict[str, Figure]:
    """Returns these plots except the confusion matrix, by name, legible on a phone.

    Arguments as for `plot_classification`.
    """
    figures = {
        "roc": _roc(predicted, names, points),
        "precision_recall": _precision_recall(predicted, names, points),
        "calibration": _calibration(predicted, names),
    }
    if len(names) == 2:
        figures["decision_curve"] = _decision_curve(predicted, names)
    return figures


def _roc(predicted: Predicted, names: Sequence[str], points: Sequence[pb.OperatingPoint]) -> Figure:
    figure = Figure(figsize=(4.4, 4.4), layout="constrained")
    axes = figure.subplots()
    axes.plot([0, 1], [0, 1], color="0.6", linestyle=":", label="chance")
    for name, scores, hits in _lines(predicted, names):
        false, true, thresholds = roc_curve(hits, scores, drop_intermediate=False)
        (line,) = axes.plot(false, true, label=f"{name}: AUC {auc(false, true):.3f}")
        for point in points[:1]:
            at = np.flatnonzero(thresholds >= point.threshold)[-1]
            axes.plot(false[at], true[at], "o", color=line.get_color())
    axes.set_title(_title("ROC", names, points))
    _unit_square(axes, "1 - specificity", "sensitivity", "lower right")
    return figure


def _precision_recall(predicted: Predicted, names: Sequence[str], points: Sequence[pb.OperatingPoint]) -> Figure:
    figure = Figure(figsize=(4.4, 4.4), layout="constrained")
    axes = figure.subplots()
    for name, scores, hits in _lines(predicted, names):
        precision, recall, thresholds = precision_recall_curve(hits, scores)
        average = average_precision_score(hits, scores)
        (line,) = axes.plot(recall, precision, label=f"{name}: average precision {average:.3f}")
        axes.axhline(hits.mean(), color=line.get_color(), linestyle=":", linewidth=1)
        for point in points[:1]:
            at = min(np.searchsorted(thresholds, point.threshold), len(thresholds) - 1)
            axes.plot(recall[at], precision[at], "o", color=line.get_color())
    axes.set_title(_title("Precision and recall", names, points))
    _unit_square(axes, "recall (sensitivity)", "precision", "lower left")
    return figure


def _lines(predicted: Predicted, names: Sequence[str]) -> list[tuple[str, Floats, NDArray[np.bool_]]]:
    """Returns a line for each split with two classes, or one-vs-rest lines for each class on the last split."""
    if len(names) == 2:
        return [
            (f"{split}, n = {len(labels)}", probabilities[:, 1], labels == 1)
            for split, (probabilities, labels) in predicted.items()
        ]
    probabilities, labels = list(predicted.values())[-1]
    return [(name, probabilities[:, index], labels == index) for index, name in enumerate(names)]


def _title(what: str, names: Sequence[str], points: Sequence[pb.OperatingPoint]) -> str:
    if len(names) > 2:
        return f"{what} of each class against the rest"
    return f"{what} of {names[1]}" + "".join(f"\ndot: {point.name}, p ≥ {point.threshold:.3f}" for point in points[:1])


def _unit_square(axes: Axes, x: str, y: str, legend: Literal["lower left", "lower right"]) -> None:
    axes.set(xlabel=x, ylabel=y, xlim=(-0.01, 1.01), ylim=(-0.01, 1.01), aspect="equal")
    axes.legend(loc=legend, fontsize="small")


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
    figure = Figure(figsize=(4.4, 5.2), layout="constrained")
    upper, lower = figure.subplots(2, height_ratios=[3, 1], sharex=True)
    upper.plot([0, 1], [0, 1], color="0.6", linestyle=":", label="perfect")
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
    share = f"fraction of {names[1]}" if len(names) == 2 else "accuracy"
    upper.set(ylabel=f"observed {share}", ylim=(-0.03, 1.03), title="Calibration in ten bins\n95 % intervals (Wilson)")
    upper.legend(loc="lower right", fontsize="small")
    lower.set(xlabel=f"predicted {what}", ylabel="number", yscale="log")
    lower.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    return figure


def net_benefit(scores: Floats, labels: Labels, threshold: float) -> float:
    """Returns the net benefit at a threshold: TP / n - FP / n * threshold odds (Vickers & Elkin 2006)."""
    positive = scores >= threshold
    true, false = (positive & (labels == 1)).mean(), (positive & (labels == 0)).mean()
    return float(true - false * threshold / (1 - threshold))


def _decision_curve(predicted: Predicted, names: Sequence[str]) -> Figure:
    figure = Figure(figsize=(4.4, 3.6), layout="constrained")
    axes = figure.subplots()
    thresholds = np.linspace(0.01, 0.99, 99)
    for index, (split, (probabilities, labels)) in enumerate(predicted.items()):
        curves = {"model": probabilities[:, 1], f"all {names[1]}": np.ones(len(labels))}
        for (name, scores), style in zip(curves.items(), "-:", strict=True):
            benefits = [net_benefit(scores, labels, threshold) for threshold in thresholds]
            axes.plot(thresholds, benefits, f"C{index}{style}", label=f"{split}, n = {len(labels)}: {name}")
    axes.axhline(0, color="0.6", linestyle=":", label=f"all {names[0]}")
    highest = max(float((labels == 1).mean()) for _, labels in predicted.values())
    axes.set(xlabel="threshold probability", ylabel="net benefit", title="Decision curve")
    # Leaves space above the curves for the legend.
    axes.set_ylim(-0.05 * highest, 1.6 * highest)
    axes.legend(fontsize="small", loc="upper right")
    return figure


def _bins(score: Floats, hit: NDArray[np.bool_]) -> list[tuple[float, ...]]:
    """Returns mean score, fraction of hits and the bounds of its interval for each non-empty bin of width 0.1."""
    bins = np.minimum((score * 10).astype(int), 9)
    points: list[tuple[float, ...]] = []
    for index in np.unique(bins):
        members = bins == index
        hits, number = int(hit[members].sum()), int(members.sum())
        interval = binomtest(hits, number).proportion_ci(method="wilson")
        points.append((float(score[members].mean()), hits / number, interval.low, interval.high))
    return points
