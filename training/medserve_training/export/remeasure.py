"""Re-evaluates a model file on its data, with ONNX Runtime alone."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from medserve_proto.v1 import manifest_pb2 as pb
from medserve_training.data.covariates import describe
from medserve_training.data.data_checks import check_images, check_patients
from medserve_training.data.image_data import load_images
from medserve_training.data.masks.image import MaskedImages
from medserve_training.data.masks.load import load_masks
from medserve_training.data.patient_data import load_patients
from medserve_training.data.splits import Images, Patients, Splits, fingerprint
from medserve_training.export.inference import open_session
from medserve_training.export.manifest import SPLITS, read_manifest, set_covariates
from medserve_training.export.measure_images import measure_images, validation_metric
from medserve_training.export.measure_risk import measure_patients
from medserve_training.export.origin import Source, recipe_of, verify_training_data
from medserve_training.export.segmentation.describe import image_fingerprint
from medserve_training.export.segmentation.maps import predict_splits
from medserve_training.export.segmentation.measure import measure_segmentation
from medserve_training.metrics.segmented import Segmented
from medserve_training.recipes.recipe import ImageTask, Recipe
from medserve_training.recipes.segmentation_settings import SegmentationTask


@dataclass(frozen=True)
class Measured:
    """The manifest of the file, a copy with recomputed figures, and the output for each evaluated split.

    For segmentation, the output is empty, and `segmented` contains the images of each split with the objects found.
    """

    recipe: Recipe
    manifest: pb.Manifest
    fresh: pb.Manifest
    data: Splits[Images] | Splits[MaskedImages] | Splits[Patients]
    output: dict[str, NDArray[np.float64]]
    segmented: dict[str, list[Segmented]] = field(default_factory=dict)


def measure_again(source: Source, splits: Sequence[str] | None = None) -> Measured:
    """Recomputes every measured figure of a model file.

    Args:
        source: The file and its data.
        splits: "validation" and "test"; by default those evaluated in the manifest.

    Raises:
        UserError: A file is missing or corrupt, or the training split differs from the one the manifest names.
    """
    manifest = read_manifest(source.path)
    recipe = recipe_of(source, manifest)
    fresh = pb.Manifest()
    fresh.CopyFrom(manifest)
    splits = splits or [
        evaluation.split
        for evaluation in manifest.evaluations
        if not evaluation.subgroup and evaluation.split in SPLITS
    ]
    session = open_session(source.path)
    data: Splits[Images] | Splits[MaskedImages] | Splits[Patients]
    segmented: dict[str, list[Segmented]] = {}
    output: dict[str, NDArray[np.float64]] = {}
    match recipe.task:
        case ImageTask() as task:
            data = images = load_images(recipe, task, source.data_dir)
            verify_training_data(manifest, fingerprint(images.train))
            check_images(images, recipe, task)
            output = measure_images(fresh, session, images, splits)
        case SegmentationTask() as task:
            data = masked = load_masks(recipe, task, source.data_dir)
            verify_training_data(manifest, image_fingerprint(masked.train))
            maps = predict_splits(session, masked, fresh.image_segmentation.input, splits)
            segmented = measure_segmentation(fresh, maps, masked, task)
        case _:
            data, schema = load_patients(recipe)
            verify_training_data(manifest, fingerprint(data.train))
            check_patients(data, recipe, schema)
            set_covariates(fresh.patient_risk, describe(data.train, schema))
            output = measure_patients(fresh, session, data, splits, getattr(recipe.task, "subgroups", ()))
    if fresh.HasField("quantization"):
        fresh.quantization.metric_after = validation_metric(fresh, fresh.quantization.metric)
    return Measured(recipe, manifest, fresh, data, output, segmented)
