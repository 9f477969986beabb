"""Evaluates a segmentation model into its manifest, for `fit`, `evaluate` and `verify`."""

from collections.abc import Mapping, Sequence

import numpy as np

from medserve_proto.v1 import manifest_pb2 as pb
from medserve_training.data.masks.image import MaskedImage, MaskedImages
from medserve_training.data.splits import Splits
from medserve_training.errors import UserError
from medserve_training.export.segmentation.choose import (
    choose_count_error,
    choose_offset,
    choose_rule,
    find_objects,
    measured_circumference,
)
from medserve_training.export.segmentation.describe import object_rule
from medserve_training.export.segmentation.maps import Maps
from medserve_training.metrics.agreement import limits_of_agreement
from medserve_training.metrics.segmentation import area_figures, measure_figures, object_figures, summarize
from medserve_training.metrics.segmented import Segmented
from medserve_training.recipes.segmentation_settings import SegmentationTask

# Fraction of the validation images that are not failures that the novelty threshold flags.
FALSE_ALARMS = 0.04
# An image whose score is below this limit is a failure, which should be flagged as unfamiliar.
FAILURES = {"average_precision_50": 0.3, "dice": 0.8}


def measure_segmentation(
    manifest: pb.Manifest,
    maps: Mapping[str, Sequence[Mapping[str, Maps]]],
    data: Splits[MaskedImages],
    task: SegmentationTask,
) -> dict[str, list[Segmented]]:
    """Chooses thresholds and errors on validation, and evaluates splits, in place.

    Args:
        manifest: Describes the labels and receives the results.
        maps: The outputs for each image of "validation", and of "test" for the final evaluation.
        data: The images.
        task: What objects are, and which measure is derived.

    Returns:
        The segmented images of each split.

    Raises:
        UserError: The task has a measure, but almost nothing is found.
    """
    described = manifest.image_segmentation
    for index, label in enumerate(described.labels):
        choose_rule(label, index, data.validation, maps["validation"])
        rule = object_rule(label)
        found = [find_objects(one, index, rule) for one in maps["validation"]]
        if not label.largest_only:
            choose_count_error(label, index, data.validation, found)
        del label.measures[:]
        if task.measure is not None and index == 0:
            offset = choose_offset(data.validation, found)
            label.measures.add(name=task.measure.name, kind=pb.Measure.KIND_ELLIPSE_CIRCUMFERENCE, offset_px=offset)
    segmented = {
        split: [_segment(image, one, described) for image, one in zip(data.part(split), maps[split], strict=True)]
        for split in maps
    }
    _choose_agreement(described, segmented["validation"])
    _choose_novelty(described, segmented["validation"])
    _set_evaluations(manifest, segmented)
    return segmented


def _segment(image: MaskedImage, maps: Mapping[str, Maps], task: pb.ImageSegmentationTask) -> Segmented:
    labels = np.stack([find_objects(maps, index, object_rule(label)) for index, label in enumerate(task.labels)])
    figures: dict[str, float] = {}
    for label, truth, found in zip(task.labels, image.labels, labels, strict=True):
        of_label = area_figures(truth, found, image.spacing) if label.largest_only else object_figures(truth, found)
        prefix = f"{label.name}: " if len(task.labels) > 1 else ""
        figures |= {f"{prefix}{name}": value for name, value in of_label.items()}
    measure = None
    if task.labels[0].measures and image.spacing is not None and image.reference is not None:
        measure = measured_circumference(labels[0], image.spacing, task.labels[0].measures[0].offset_px)
        figures |= measure_figures(measure, image.reference)
    return Segmented(image, labels, figures, float(maps["novelty"]), measure)


def _choose_agreement(task: pb.ImageSegmentationTask, segmented: Sequence[Segmented]) -> None:
    for measure in task.labels[0].measures:
        differences = [
            one.measure - one.image.reference
            for one in segmented
            if one.measure is not None and one.image.reference is not None
        ]
        if len(differences) < 2:
            raise UserError(
                f"{measure.name}: cannot be measured, since objects are found in {len(differences)} of "
                f"{len(segmented)} validation images; train for more epochs"
            )
        measure.bias_mm, measure.agreement_mm = limits_of_agreement(np.array(differences))


def _choose_novelty(task: pb.ImageSegmentationTask, segmented: Sequence[Segmented]) -> None:
    """Sets the threshold on novelty that few images exceed that are not failures."""
    scores = np.array([one.novelty for one in segmented])
    others = scores[~np.array([_failed(task, one) for one in segmented])]
    if len(others):
        task.novelty.threshold = float(np.quantile(others, 1 - FALSE_ALARMS))
        task.novelty.false_alarms = float((others > task.novelty.threshold).mean())


def _failed(task: pb.ImageSegmentationTask, one: Segmented) -> bool:
    name = "dice" if task.labels[0].largest_only else "average_precision_50"
    prefix = f"{task.labels[0].name}: " if len(task.labels) > 1 else ""
    return one.figures[f"{prefix}{name}"] < FAILURES[name]


def _set_evaluations(manifest: pb.Manifest, segmented: Mapping[str, Sequence[Segmented]]) -> None:
    """Sets the evaluations of each split and of each kind of image in it, replacing existing ones."""
    del manifest.evaluations[:]
    for split, images in segmented.items():
        kinds = sorted({one.image.kind for one in images})
        for kind in ("", *(kinds if len(kinds) > 1 else ())):
            chosen = [one for one in images if kind in ("", one.image.kind)]
            metrics = summarize([one.figures for one in chosen], [one.image.group for one in chosen])
            if not kind:
                metrics += _novelty_metrics(manifest.image_segmentation, images)
            manifest.evaluations.append(
                pb.Evaluation(
                    data=manifest.training.data, split=split, subgroup=kind, size=len(chosen), metrics=metrics
                )
            )


def _novelty_metrics(task: pb.ImageSegmentationTask, images: Sequence[Segmented]) -> list[pb.Metric]:
    """Returns the fraction of failures and of other images that are flagged as unfamiliar."""
    flags: dict[bool, list[bool]] = {True: [], False: []}
    for one in images:
        flags[_failed(task, one)].append(one.novelty > task.novelty.threshold)
    named = {"unfamiliar_among_failures": flags[True], "unfamiliar_among_others": flags[False]}
    return [pb.Metric(name=key, value=float(np.mean(values))) for key, values in named.items() if values]
