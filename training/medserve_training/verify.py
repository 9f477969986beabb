"""Recomputes a manifest's figures from its ONNX file, through ONNX Runtime alone."""

from dataclasses import dataclass
from pathlib import Path

from medserve_proto.v1 import manifest_pb2 as pb
from medserve_training.covariates import describe
from medserve_training.image_data import load_images
from medserve_training.inference import open_session, predict
from medserve_training.manifest import figures, read_manifest, set_covariates
from medserve_training.measure import measure_images, measure_patients, validation_metric
from medserve_training.origin import hold_to_training_data, recipe_of
from medserve_training.patient_data import load_patients
from medserve_training.recipe import ImageTask

TOLERANCE = 1e-6


@dataclass(frozen=True)
class Comparison:
    """One figure, as the manifest has it and as it came out again; None where one of the two lacks it."""

    name: str
    stated: float | None
    recomputed: float | None

    @property
    def agrees(self) -> bool:
        """Whether the two differ by no more than the tolerance."""
        if self.stated is None or self.recomputed is None:
            return False
        return abs(self.stated - self.recomputed) <= TOLERANCE


def verify(path: Path, data: str, recipe_name: str | None, data_dir: Path) -> list[Comparison]:
    """Recomputes every measured figure.

    Args:
        path: The ONNX file.
        data: Data spec of the data the manifest speaks of.
        recipe_name: Packaged name or path of the recipe, for the split; by default the manifest's.
        data_dir: Where MedMNIST's files lie.

    Raises:
        UserError: A file is missing or broken, or the data's training split is not the one the manifest names.
    """
    manifest = read_manifest(path)
    recipe = recipe_of(path, manifest, data, recipe_name)
    fresh = pb.Manifest()
    fresh.CopyFrom(manifest)
    session = open_session(path)
    if isinstance(recipe.task, ImageTask):
        images = load_images(recipe, recipe.task, data_dir)
        hold_to_training_data(manifest, images.train)
        measure_images(fresh, images.map(lambda rows: predict(session, rows.pixels)), images)
    else:
        patients, schema = load_patients(recipe)
        hold_to_training_data(manifest, patients.train)
        set_covariates(fresh.patient_risk, describe(patients.train, schema))
        measure_patients(fresh, patients.map(lambda rows: predict(session, rows.features)), patients)
    if fresh.HasField("quantization"):
        fresh.quantization.metric_after = validation_metric(fresh, fresh.quantization.metric)
    stated, recomputed = figures(manifest), figures(fresh)
    return [Comparison(name, stated.get(name), recomputed.get(name)) for name in {**stated, **recomputed}]
