"""A model file measured again on its data, through ONNX Runtime alone."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from medserve_proto.v1 import manifest_pb2 as pb
from medserve_training.data.covariates import describe
from medserve_training.data.data_checks import check_images, check_patients
from medserve_training.data.image_data import load_images
from medserve_training.data.patient_data import load_patients
from medserve_training.data.splits import Images, Patients, Splits
from medserve_training.export.inference import open_session
from medserve_training.export.manifest import SPLITS, read_manifest, set_covariates
from medserve_training.export.measure_images import measure_images, validation_metric
from medserve_training.export.measure_risk import measure_patients
from medserve_training.export.origin import Source, hold_to_training_data, recipe_of
from medserve_training.recipes.recipe import ImageTask, Recipe


@dataclass(frozen=True)
class Measured:
    """What came out: the file's manifest, the one with fresh figures, and the output for each split measured."""

    recipe: Recipe
    manifest: pb.Manifest
    fresh: pb.Manifest
    data: Splits[Images] | Splits[Patients]
    output: dict[str, NDArray[np.float64]]


def measure_again(source: Source, splits: Sequence[str] | None = None) -> Measured:
    """Recomputes every measured figure of a model file.

    Args:
        source: The file and its data.
        splits: "validation" and "test"; by default those that the manifest has figures of.

    Raises:
        UserError: A file is missing or broken, or the data's training split is not the one the manifest names.
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
    data: Splits[Images] | Splits[Patients]
    if isinstance(recipe.task, ImageTask):
        data = images = load_images(recipe, recipe.task, source.data_dir)
        hold_to_training_data(manifest, images.train)
        check_images(images, recipe, recipe.task)
        output = measure_images(fresh, session, images, splits)
    else:
        data, schema = load_patients(recipe)
        hold_to_training_data(manifest, data.train)
        check_patients(data, recipe, schema)
        set_covariates(fresh.patient_risk, describe(data.train, schema))
        output = measure_patients(fresh, session, data, splits, getattr(recipe.task, "subgroups", ()))
    if fresh.HasField("quantization"):
        fresh.quantization.metric_after = validation_metric(fresh, fresh.quantization.metric)
    return Measured(recipe, manifest, fresh, data, output)
