"""Evaluates a segmentation model into its manifest, for `fit`, `evaluate` and `verify`."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from medserve_proto.v1 import manifest_pb2 as pb
from medserve_training.data.masks import MaskedImage, MaskedImages
from medserve_training.data.splits import Splits
from medserve_training.export.segmentation.choose import (
    choose_count_error,
    choose_offset,
    choose_rule,
    find_objects,
    measured_circumference,
)
from medserve_training.export.segmentation.describe import object_rule
from medserve_training.export.segmentation.maps import Maps, predict_maps
from medserve_training.metrics.agreement import limits_of_agreement
from medserve_training.metrics.segmentation import ImageScore, score_image, summarize
from medserve_training.recipes.segmentation_settings import SegmentationTask

# Fraction of the validation split that the novelty threshold flags.
FALSE_ALARMS = 0.03


@dataclass(frozen=True)
class Segmented:
    """A segmented image.

    Attributes:
        image: The image with its masks.
        labels: The objects that were found, int32 [labels, h, w].
        score: Its figures.
        novelty: Its novelty score; None if the model has none.
        measure: The task's measure in mm; None if it has none, or nothing was found.
    """

    image: MaskedImage
    labels: NDArray[np.int32]
    score: ImageScore
    novelty: float | None
    measure: float | None


def measure_segmentation(
    manifest: pb.Manifest,
    session: onnxruntime.InferenceSession,
    data: Splits[MaskedImages],
    task: SegmentationTask,
    splits: Sequence[str],
) -> dict[str, list[Segmented]]:
    """Chooses thresholds and errors on validation, and evaluates splits, in place.

    Args:
        manifest: Describes the input and receives the results.
        session: The model.
        data: The images.
        task: What objects are, and which measure is derived.
        splits: "validation", and "test" for the final evaluation.

    Returns:
        The segmented images of each split.
    """
    described = manifest.image_segmentation
    maps = {
        split: [predict_maps(session, image.pixels, described.input) for image in data.part(split)] for split in splits
    }
    for index, label in enumerate(described.labels):
        choose_rule(label, index, data.validation, maps["validation"])
        if task.objects != "largest":
            rule = object_rule(label)
            found = [find_objects(one, index, rule) for one in maps["validation"]]
            choose_count_error(label, index, data.validation, found)
    if task.measure is not None:
        offset = choose_offset((*data.train, *data.validation), 0)
        del described.labels[0].measures[:]
        described.labels[0].measures.add(
            name=task.measure.name, kind=pb.Measure.KIND_ELLIPSE_CIRCUMFERENCE, offset_px=offset
        )
    segmented = {
        split: [_segment(image, one, described) for image, one in zip(data.part(split), maps[split], strict=True)]
        for split in splits
    }
    _choose_agreement(described, segmented["validation"])
    _choose_novelty(described, segmented["validation"])
    _set_evaluations(manifest, segmented)
    return segmented


def _segment(image: MaskedImage, maps: Mapping[str, Maps], task: pb.ImageSegmentationTask) -> Segmented:
    labels = np.stack([find_objects(maps, index, object_rule(label)) for index, label in enumerate(task.labels)])
    measure = None
    if task.labels[0].measures and image.spacing is not None:
        measure = measured_circumference(labels[0], image.spacing, task.labels[0].measures[0].offset_px)
    novelty = float(maps["novelty"]) if "novelty" in maps else None
    return Segmented(image, labels, score_image(image.labels, labels, image.spacing), novelty, measure)


def _choose_agreement(task: pb.ImageSegmentationTask, segmented: Sequence[Segmented]) -> None:
    for measure in task.labels[0].measures:
        differences = [
            one.measure - one.image.reference
            for one in segmented
            if one.measure is not None and one.image.reference is not None
        ]
        measure.bias_mm, measure.agreement_mm = limits_of_agreement(np.array(differences))


def _choose_novelty(task: pb.ImageSegmentationTask, segmented: Sequence[Segmented]) -> None:
    scores = np.array([one.novelty for one in segmented if one.novelty is not None])
    if len(scores):
        task.novelty.threshold = float(np.quantile(scores, 1 - FALSE_ALARMS))
        task.novelty.false_alarms = float((scores > task.novelty.threshold).mean())


def _set_evaluations(manifest: pb.Manifest, segmented: Mapping[str, Sequence[Segmented]]) -> None:
    """Sets the evaluations of each split and of each kind of image in it, replacing existing ones."""
    del manifest.evaluations[:]
    for split, images in segmented.items():
        kinds = sorted({one.image.kind for one in images})
        for kind in ("", *(kinds if len(kinds) > 1 else ())):
            chosen = [one for one in images if kind in ("", one.image.kind)]
            manifest.evaluations.append(
                pb.Evaluation(
                    data=manifest.training.data,
                    split=split,
                    subgroup=kind,
                    size=len(chosen),
                    metrics=summarize([one.score for one in chosen], [one.image.group for one in chosen]),
                )
            )
