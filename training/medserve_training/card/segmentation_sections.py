"""Sections of a segmentation model's card."""

from collections.abc import Sequence
from functools import partial

import numpy as np

from medserve_proto.v1 import manifest_pb2 as pb
from medserve_training.card.map_pictures import permitted
from medserve_training.card.parts import Block, Picture, Pictures, Section, Table, interval, percent
from medserve_training.card.quality_sections import title
from medserve_training.card.segmentation_pictures import examples
from medserve_training.card.svg import draw, labeled
from medserve_training.data.masks.image import MaskedImages
from medserve_training.data.splits import Splits
from medserve_training.export.remeasure import Measured
from medserve_training.export.segmentation.measure import FAILURES
from medserve_training.metrics.agreement import limits_of_agreement
from medserve_training.metrics.segmented import Segmented
from medserve_training.plots.segmentation import counts, measured_pairs, quality_figures, size_classes

_CAPTIONS = {
    "precision": "Average precision, TP / (TP + FP + FN), by the intersection over union above which an object counts "
    "as found.",
    "counts": "True number of objects against the number found in each image; the band is that of the count's error.",
    "sizes": "Fraction of the objects of the test split that are found, by size.",
    "dice": "Fraction of the images up to each Dice coefficient.",
    "agreement": "Bland-Altman plot: difference from the reference against the mean of both; lines: bias and limits of "
    "agreement.",
    "measured": "Measured values against the reference.",
}


def interface(manifest: pb.Manifest) -> list[Block]:
    """Describes the model's input and output."""
    task = manifest.image_segmentation
    color = pb.ColorSpace.Name(task.input.color_space).removeprefix("COLOR_SPACE_").replace("GRAY", "grayscale")
    size = f"resized to {task.input.fixed.width} by {task.input.fixed.height} pixels"
    if task.input.HasField("tiling"):
        size = (
            f"at its own resolution, in overlapping tiles of up to {task.input.tiling.max_side} by "
            f"{task.input.tiling.max_side} pixels"
        )
    names = ", ".join(label.name for label in task.labels)
    return [f"Input: an image, {color}, {size}. Output: masks and measurements of the objects with the label {names}."]


def sizes(manifest: pb.Manifest, data: Splits[MaskedImages]) -> Table:
    """Returns the number of images, groups and objects in each split."""
    labels = manifest.image_segmentation.labels
    kinds = sorted({image.kind for image in (*data.train, *data.validation, *data.test)} - {""})
    rows = []
    for split in ("train", "validation", "test"):
        images = data.part(split)
        of_kind = [f"{sum(image.kind == kind for image in images):,}" for kind in kinds]
        objects = [f"{sum(len(_areas(image.labels[index])) for image in images):,}" for index in range(len(labels))]
        rows.append([split, f"{len(images):,}", *of_kind, f"{len({image.group for image in images}):,}", *objects])
    return Table(
        [
            "split",
            "images",
            *(f"images, {kind}" for kind in kinds),
            "groups",
            *(f"objects, {label.name}" for label in labels),
        ],
        rows,
    )


def _areas(objects: np.ndarray[tuple[int, ...], np.dtype[np.int32]]) -> list[int]:
    areas: list[int] = np.unique(objects[objects > 0], return_counts=True)[1].tolist()
    return areas


def found(measured: Measured) -> list[Section]:
    """Returns the sections about the model's performance on validation and test."""
    task = measured.fresh.image_segmentation
    drawn = draw(partial(quality_figures, measured.segmented, task), "quality")
    pictures = {}
    for name, svg in drawn.items():
        caption = _CAPTIONS[name.partition("_")[0]]
        pictures[name] = Picture(labeled(svg, caption), caption)
    agreement = [picture for name, picture in pictures.items() if name.startswith(("agreement", "measured"))]
    test = measured.segmented["test"]
    return [
        Section(
            "Objects found",
            [Pictures([one for one in pictures.values() if one not in agreement]), *_by_size(task, test)],
        ),
        Section("Decisions", _decisions(task, test)),
        *_measures(task, measured, agreement),
        *_unfamiliar(task, test),
        examples(_chosen(task, test), measured.fresh.training.data, permitted=permitted(measured)),
    ]


def _by_size(task: pb.ImageSegmentationTask, test: Sequence[Segmented]) -> list[Block]:
    blocks: list[Block] = []
    for index, label in enumerate(task.labels):
        if label.largest_only:
            continue
        rows = [
            [
                f"{one.smallest:.1f} to {one.largest:.1f}",
                f"{one.number:,}",
                interval(one.found / one.number, *one.interval),
            ]
            for one in size_classes(test, index)
        ]
        note = "On test; an intersection over union above 0.5; 95 % intervals (Wilson), as if objects were independent."
        blocks.append(Table([f"diameter of {label.name}, pixels", "objects", "fraction found"], rows, note))
    return blocks


def _decisions(task: pb.ImageSegmentationTask, test: Sequence[Segmented]) -> list[Block]:
    rows = []
    for label in task.labels:
        marker = f"{label.marker_distance:g}" if label.HasField("marker_distance") else "not separated"
        rows.append([label.name, f"{label.threshold:g}", marker, f"{label.min_area_px} pixels", label.chosen_on])
    note = "Pixels with at least this probability belong to an object. " + (
        "Of several areas, the largest is the object; its holes are filled."
        if task.labels[0].largest_only
        else "Touching objects are separated by a watershed from the areas with at least the marker distance; smaller "
        "objects are discarded."
    )
    blocks: list[Block] = [Table(["label", "p ≥", "marker distance ≥", "minimum area", "chosen on"], rows, note)]
    for index, label in enumerate(task.labels):
        if label.HasField("count_error"):
            error = label.count_error
            number, true = counts(test, index)
            within = (error.low_ratio * number <= true) & (true <= error.high_ratio * number)
            blocks.append(
                f"Count of {label.name}: for {error.coverage:.0%} of the images of {label.chosen_on}, the true "
                f"count is between {error.low_ratio:.2f} and {error.high_ratio:.2f} times the count; on test, for "
                f"{percent(float(within.mean()))}."
            )
    return blocks


def _measures(task: pb.ImageSegmentationTask, measured: Measured, pictures: Sequence[Picture]) -> list[Section]:
    sections = []
    for measure in (measure for label in task.labels for measure in label.measures):
        rows = []
        for split, images in measured.segmented.items():
            values, reference = measured_pairs(images)
            bias, limits = limits_of_agreement(values - reference)
            mean = float(np.abs(values - reference).mean())
            rows.append([split, f"{len(values):,}", f"{bias:.2f} mm", f"{limits:.2f} mm", f"{mean:.2f} mm"])
        head = ["split", "n", "bias", "limits of agreement, ±", "mean absolute difference"]
        text = (
            "The circumference of the ellipse with the same second moments as the mask, corrected by "
            f"{measure.offset_px:+.3f} pixels, the mean difference of the reference from it on validation."
        )
        note = "The server returns the bias and the limits of agreement of validation with each measurement."
        sections.append(
            Section(f"Agreement of the {measure.name}", [text, Table(head, rows, note), Pictures(pictures)])
        )
    return sections


def _unfamiliar(task: pb.ImageSegmentationTask, test: Sequence[Segmented]) -> list[Section]:
    if not task.HasField("novelty"):
        return []
    novelty = task.novelty
    flagged = np.array([one.novelty is not None and one.novelty > novelty.threshold for one in test])
    name = _score_name(task)
    failed = np.array([_score(task, one) < FAILURES[name] for one in test])
    words = f"failures, with {title(name)[0]} below {FAILURES[name]}"
    rows = [
        [kind, f"{members.sum():,}", f"{flagged[members].sum():,}"]
        for kind, members in ((words, failed), ("others, for which a warning is a false alarm", ~failed))
    ]
    text = (
        f"{novelty.method}. An image with a score above {novelty.threshold:.4g} is returned with a warning; the "
        f"threshold was chosen so that {percent(novelty.false_alarms)} of the validation split are."
    )
    note = (
        "The absence of a warning does not show that an image resembles the training data, or that the answer is good."
    )
    return [Section("Unfamiliar images", [text, Table(["images of test", "n", "with a warning"], rows, note)])]


def _score_name(task: pb.ImageSegmentationTask) -> str:
    """Returns the figure by which images are ranked: of the masks if there is one object, else of the objects."""
    return "dice" if task.labels[0].largest_only else "average_precision_50"


def _score(task: pb.ImageSegmentationTask, one: Segmented) -> float:
    """Returns this figure, averaged over the labels."""
    name = _score_name(task)
    return float(np.mean([value for key, value in one.figures.items() if key.split(": ")[-1] == name]))


def _chosen(task: pb.ImageSegmentationTask, test: Sequence[Segmented]) -> list[tuple[str, Segmented]]:
    """Returns the worst, the median and the best test image, with captions."""
    scores = [_score(task, one) for one in test]
    order = np.argsort(scores, kind="stable").tolist()
    what, _ = title(_score_name(task))
    chosen = []
    for word, place in (("worst", 0), ("median", len(order) // 2), ("best", -1)):
        one, score = test[order[place]], scores[order[place]]
        kind = f" ({one.image.kind})" if one.image.kind else ""
        chosen.append((f"{word} test image{kind}, {what}: {score:.2f}", one))
    return chosen


def limits(manifest: pb.Manifest, data: Splits[MaskedImages]) -> list[str]:
    """Returns the model's limitations, in plain language."""
    task = manifest.image_segmentation
    texts = [
        (
            f"The figures apply to images like these: {manifest.training.data}. Performance with other devices, "
            "preparations, hospitals and patients differs, and by how much is unknown."
        ),
        (
            f"It knows no other objects than {', '.join(label.name for label in task.labels)}: it may outline whatever "
            "resembles them, also in images that contain none."
        ),
    ]
    if task.input.HasField("fixed"):
        texts.append(f"It sees {task.input.fixed.width} by {task.input.fixed.height} pixels; finer detail is lost.")
    else:
        for index, label in enumerate(task.labels):
            areas = [area for image in data.train for area in _areas(image.labels[index])]
            low, high = 2 * np.sqrt(np.quantile(areas, [0.05, 0.95]) / np.pi)
            texts.append(
                f"It segments images at their own resolution: 90 % of the objects in training with the label "
                f"{label.name} have a diameter from {low:.0f} to {high:.0f} pixels. Rescale images in which they have "
                "not."
            )
    texts += [
        "Sizes in millimeters or micrometers need the spacing of the pixels, and are only as accurate as it is.",
        "Intervals describe the sampling error on images like these, not the performance at another site.",
    ]
    if not any(entry.subgroup for entry in manifest.evaluations):
        texts.append("The data does not record age, sex or origin, so no subgroups could be evaluated.")
    return texts
