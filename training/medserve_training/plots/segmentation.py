"""Plots of a segmentation model's performance: objects found by overlap and by size, counts, and agreement."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import ScalarFormatter
from numpy.typing import NDArray
from scipy.stats import binomtest

from medserve_proto.v1 import manifest_pb2 as pb
from medserve_training.metrics.agreement import limits_of_agreement
from medserve_training.metrics.objects import average_precision, match_objects
from medserve_training.metrics.overlap import dice
from medserve_training.metrics.segmentation import OVERLAPS
from medserve_training.metrics.segmented import Segmented
from medserve_training.plots.style import STYLE

Floats = NDArray[np.float64]
# The segmented images of each split.
Parts = Mapping[str, Sequence[Segmented]]

# Number of classes of object size; with more, each has too few objects.
_SIZES = 6


def plot_segmentation(segmented: Parts, manifest: pb.Manifest, folder: Path) -> list[Path]:
    """Writes the plots of `quality_figures`, NAME.png each.

    Args:
        segmented: The segmented images of each split.
        manifest: Describes the labels and the measure.
        folder: Output folder.

    Returns:
        The written files.
    """
    paths = []
    with rc_context(STYLE):
        for name, figure in quality_figures(segmented, manifest.image_segmentation).items():
            path = folder / f"{name}.png"
            figure.savefig(path, dpi=160)
            paths.append(path)
    return paths


def quality_figures(segmented: Parts, task: pb.ImageSegmentationTask) -> dict[str, Figure]:
    """Returns the plots by name, legible on a phone.

    For each label, average precision ("precision"), counts ("counts") and, for the last split, found objects by size
    ("sizes") or, if there is one object in an image, its Dice coefficient ("dice"); with several labels, the names end
    in the label's number. For a measure, its agreement with the reference ("agreement") and both against each other
    ("measured").

    Args:
        segmented: The segmented images of each split.
        task: Describes the labels and the measure.
    """
    figures = {}
    for index, label in enumerate(task.labels):
        suffix = f"_{index + 1}" if len(task.labels) > 1 else ""
        if label.largest_only:
            figures[f"dice{suffix}"] = _dice(segmented, index, label.name)
        else:
            figures[f"precision{suffix}"] = _precision(segmented, index, label.name)
            figures[f"counts{suffix}"] = _counts(segmented, index, label)
            figures[f"sizes{suffix}"] = _sizes(segmented, index, label.name)
        for measure in label.measures:
            figures[f"agreement{suffix}"] = _agreement(segmented, measure)
            figures[f"measured{suffix}"] = _measured(segmented, measure)
    return figures


def _lines(segmented: Parts) -> Iterator[tuple[str, Sequence[Segmented]]]:
    """Yields the images of each kind in each split, with a title."""
    for split, images in segmented.items():
        for kind in sorted({one.image.kind for one in images}):
            part = [one for one in images if one.image.kind == kind]
            yield ", ".join(word for word in (split, kind, f"n = {len(part)}") if word), part


def _dice(segmented: Parts, index: int, label: str) -> Figure:
    figure = Figure(figsize=(4.4, 3.4), layout="constrained")
    axes = figure.subplots()
    for name, images in _lines(segmented):
        values = [dice(one.image.labels[index] > 0, one.labels[index] > 0) for one in images]
        axes.ecdf(values, label=f"{name}: median {np.median(values):.3f}")
    axes.set(xlabel="Dice coefficient", ylabel="fraction of images up to it", title=f"Overlap of {label} with truth")
    axes.legend(loc="upper left", fontsize="small")
    return figure


def _precision(segmented: Parts, index: int, label: str) -> Figure:
    figure = Figure(figsize=(4.4, 4.4), layout="constrained")
    axes = figure.subplots()
    for name, images in _lines(segmented):
        matches = [match_objects(one.image.labels[index], one.labels[index]) for one in images]
        means = [np.mean([average_precision(of_image, overlap) for of_image in matches]) for overlap in OVERLAPS]
        axes.plot(OVERLAPS, means, "o-", markersize=4, label=name)
    axes.set(xlabel="minimum intersection over union (IoU)", ylabel="average precision")
    axes.set(xlim=(0.48, 0.97), ylim=(-0.01, 1.01), title=f"Precision of {label}: TP / (TP + FP + FN)\nmean of images")
    axes.legend(fontsize="small")
    return figure


def _counts(segmented: Parts, index: int, label: pb.SegmentedLabel) -> Figure:
    figure = Figure(figsize=(4.4, 4.4), layout="constrained")
    axes = figure.subplots()
    highest = 1
    for name, images in _lines(segmented):
        found, true = counts(images, index)
        axes.plot(found, true, "o", markersize=4, alpha=0.6, label=name)
        highest = max(highest, int(true.max()), int(found.max()))
    line = np.array([0, 2 * highest])
    axes.plot(line, line, color="0.6", linestyle=":", label="equal")
    error = label.count_error
    axes.fill_between(line, error.low_ratio * line, error.high_ratio * line, color="0.6", alpha=0.2, linewidth=0)
    axes.set(xscale="symlog", yscale="symlog", xlim=(-0.3, 2 * highest), ylim=(-0.3, 2 * highest), aspect="equal")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(ScalarFormatter())
    axes.set_title(f"Count of {label.name} in an image\nband: {error.coverage:.0%} of {label.chosen_on}")
    axes.set(xlabel="objects found", ylabel="objects in the truth")
    axes.legend(loc="upper left", fontsize="small")
    return figure


def _sizes(segmented: Parts, index: int, label: str) -> Figure:
    figure = Figure(figsize=(4.4, 3.8), layout="constrained")
    axes = figure.subplots()
    for name, images in _lines(dict([list(segmented.items())[-1]])):
        classes = size_classes(images, index)
        share = np.array([one.found / one.number for one in classes])
        bounds = [one.interval for one in classes]
        low, high = np.array(bounds).reshape(-1, 2).T
        diameters = [one.median for one in classes]
        axes.errorbar(diameters, share, [share - low, high - share], fmt="o-", capsize=3, markersize=4, label=name)
    axes.set(xlabel="diameter of a circle of the same area, pixels", ylabel="fraction found", ylim=(-0.03, 1.03))
    axes.set(xlim=(0, None), title=f"Found {label} (IoU above 0.5), by size\n95 % intervals (Wilson)")
    axes.legend(fontsize="small")
    return figure


class SizeClass(NamedTuple):
    """True objects of similar size: smallest, median and largest diameter in pixels, their number, and those found."""

    smallest: float
    median: float
    largest: float
    number: int
    found: int

    @property
    def interval(self) -> tuple[float, float]:
        """The 95 % interval (Wilson) of the fraction found."""
        bounds = binomtest(self.found, self.number).proportion_ci(method="wilson")
        return bounds.low, bounds.high


def size_classes(images: Sequence[Segmented], index: int) -> list[SizeClass]:
    """Returns the true objects of a label in classes of about equal number, by the diameter of a circle of their area.

    An object is found if it and an object in the answer have an intersection over union above 0.5.

    Args:
        images: The segmented images.
        index: Index of the label.
    """
    parts = [_found_by_size(one, index) for one in images]
    diameters, hits = (np.concatenate(part) for part in zip(*parts, strict=True))
    if not len(diameters):
        return []
    group = np.digitize(diameters, np.quantile(diameters, np.arange(1, _SIZES) / _SIZES))
    classes = []
    for members in (group == number for number in np.unique(group)):
        sizes = diameters[members]
        bounds = float(sizes.min()), float(np.median(sizes)), float(sizes.max())
        classes.append(SizeClass(*bounds, len(sizes), int(hits[members].sum())))
    return classes


def _found_by_size(one: Segmented, index: int) -> tuple[Floats, NDArray[np.bool_]]:
    """Returns the equivalent diameter of each true object in pixels, and whether it was found."""
    matches = match_objects(one.image.labels[index], one.labels[index])
    hits = np.zeros(len(matches.true_areas), np.bool_)
    hits[matches.pairs[matches.overlaps > 0.5, 0]] = True
    return 2 * np.sqrt(matches.true_areas / np.pi), hits


def _agreement(segmented: Parts, measure: pb.Measure) -> Figure:
    """Plots differences against means, with bias and limits of agreement of the last split (Bland & Altman 1986)."""
    figure = Figure(figsize=(4.4, 3.8), layout="constrained")
    axes = figure.subplots()
    for name, images in _lines(segmented):
        measured, reference = measured_pairs(images)
        axes.plot((measured + reference) / 2, measured - reference, "o", markersize=4, alpha=0.6, label=name)
    split, images = list(segmented.items())[-1]
    measured, reference = measured_pairs(images)
    bias, limits = limits_of_agreement(measured - reference)
    axes.axhline(bias, color="black", linewidth=1)
    for bound in (bias - limits, bias + limits):
        axes.axhline(bound, color="black", linestyle="--", linewidth=1)
    axes.set(xlabel="mean of measured and reference, mm", ylabel="measured - reference, mm")
    axes.set_title(f"{measure.name}, {split}\nbias {bias:.2f} mm, limits of agreement ± {limits:.2f} mm")
    axes.legend(fontsize="small")
    return figure


def _measured(segmented: Parts, measure: pb.Measure) -> Figure:
    figure = Figure(figsize=(4.4, 4.4), layout="constrained")
    axes: Axes = figure.subplots()
    for name, images in _lines(segmented):
        measured, reference = measured_pairs(images)
        axes.plot(reference, measured, "o", markersize=4, alpha=0.6, label=name)
    axes.axline((0, 0), slope=1, color="0.6", linestyle=":", label="equal")
    axes.set(xlabel="reference, mm", ylabel="measured, mm", title=measure.name, aspect="equal")
    axes.legend(loc="upper left", fontsize="small")
    return figure


def measured_pairs(images: Sequence[Segmented]) -> tuple[Floats, Floats]:
    """Returns the measures and their references of the images that have both."""
    pairs = [(one.measure, one.image.reference) for one in images if one.measure is not None]
    measured, reference = np.array(pairs, np.float64).reshape(-1, 2).T
    return measured, reference


def counts(images: Sequence[Segmented], index: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Returns the number of objects of a label that were found in each image, and the true number."""
    found = [len(np.unique(one.labels[index][one.labels[index] > 0])) for one in images]
    true = [len(np.unique(one.image.labels[index][one.image.labels[index] > 0])) for one in images]
    return np.array(found, np.int64), np.array(true, np.int64)
