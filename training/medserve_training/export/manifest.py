"""Builds the manifest from recipe and data, embeds it into the ONNX file and reads it from there."""

import datetime as dt
import os
from importlib.metadata import version
from pathlib import Path

import onnx
from google.protobuf import json_format
from google.protobuf.message import DecodeError

from medserve_proto.v1 import manifest_pb2 as pb
from medserve_training.data.covariates import Covariates
from medserve_training.data.schema import Category, Number, Schema
from medserve_training.data.splits import Images, Patients, fingerprint
from medserve_training.errors import UserError
from medserve_training.recipes.recipe import ImageTask, Recipe, SurvivalTask
from medserve_training.recipes.segmentation_settings import SegmentationTask

KEY = "medserve.manifest"
SCHEMA_VERSION = 1
NOVELTY = "Mahalanobis distance of the last features to the nearest class, mean over the members"
# Splits on which a file itself is evaluated; cross-validation and external cohorts evaluate its recipe.
SPLITS = ("validation", "test")
RISK_NOVELTY = "Mahalanobis distance of the encoded covariates"

COLORS = {"gray": pb.COLOR_SPACE_GRAY, "rgb": pb.COLOR_SPACE_RGB}
_CROPS = {"none": pb.CROP_NONE, "center": pb.CROP_CENTER}
RESAMPLINGS = {"bilinear": pb.RESAMPLING_BILINEAR, "bicubic": pb.RESAMPLING_BICUBIC}


def image_manifest(
    recipe: Recipe, task: ImageTask, train: Images, calibration: pb.Calibration | None, graph: onnx.GraphProto
) -> pb.Manifest:
    """Builds the manifest of an image classifier, without evaluations.

    Args:
        recipe: The recipe of the model.
        task: Its task.
        train: The training split.
        calibration: The calibration of the probabilities, if any.
        graph: The exported graph, whose optional outputs are described.
    """
    manifest = base_manifest(recipe, fingerprint(train))
    manifest.image_classification.CopyFrom(
        pb.ImageClassificationTask(
            input=pb.ImageInput(
                height=task.height,
                width=task.width,
                color_space=COLORS[task.color],
                crop=_CROPS[task.crop],
                resampling=RESAMPLINGS[task.resampling],
            ),
            labels=task.labels,
            calibration=calibration,
            members=recipe.training.members,
        ),
    )
    _describe_outputs(manifest.image_classification, graph)
    return manifest


def _describe_outputs(task: pb.ImageClassificationTask, graph: onnx.GraphProto) -> None:
    for output in graph.output:
        shape = [entry.dim_value for entry in output.type.tensor_type.shape.dim]
        kind, _, layer = output.name.partition(".")
        match kind:
            case "novelty":
                task.novelty.method = NOVELTY
            case "class_activation":
                task.class_activation.height, task.class_activation.width = shape[2:]
            case "feature_map":
                size = pb.MapSize(height=shape[2], width=shape[3])
                task.feature_maps.append(pb.FeatureMap(layer=layer, channels=shape[1], size=size))
            case _:
                pass


def risk_manifest(
    recipe: Recipe, task: SurvivalTask, schema: Schema, covariates: Covariates, train: Patients
) -> pb.Manifest:
    """Builds the manifest of a survival model, without evaluations and bounds of the risk groups."""
    manifest = base_manifest(recipe, fingerprint(train))
    manifest.patient_risk.CopyFrom(
        pb.PatientRiskTask(
            features=[_feature(spec) for spec in schema.features],
            event=schema.outcome.description,
            time_unit=schema.outcome.time_unit,
            curve_times=task.curve_times,
            horizons=[pb.Horizon(label=horizon.label, time=horizon.time) for horizon in task.horizons],
            risk_groups=[pb.RiskGroup(label=label) for label in task.risk_groups],
            reference_horizon=task.reference_horizon,
            members=recipe.training.members,
            novelty=pb.Novelty(method=RISK_NOVELTY),
        ),
    )
    set_covariates(manifest.patient_risk, covariates)
    return manifest


def base_manifest(recipe: Recipe, data_sha256: str) -> pb.Manifest:
    """Returns a manifest with the texts of a recipe and the provenance of its weights, without a task.

    Args:
        recipe: The recipe of the model.
        data_sha256: Fingerprint of the training split.
    """
    texts = recipe.manifest
    packages = ["torch", "onnx", "onnxruntime", "numpy", "scikit-learn"]
    packages.append("scikit-image" if isinstance(recipe.task, SegmentationTask) else "scikit-survival")
    return pb.Manifest(
        schema_version=SCHEMA_VERSION,
        name=recipe.name,
        title=texts.title,
        description=texts.description,
        intended_use=texts.intended_use,
        license=texts.license,
        training=pb.Training(
            recipe=recipe.name,
            data=recipe.data.description,
            data_sha256=data_sha256,
            date=_today(),
            seed=recipe.seed,
            packages={name: version(name).partition("+")[0] for name in packages},
        ),
    )


def _today() -> str:
    """Returns the date in UTC, or of SOURCE_DATE_EPOCH (https://reproducible-builds.org/specs/source-date-epoch)."""
    epoch = os.environ.get("SOURCE_DATE_EPOCH")
    now = dt.datetime.now(dt.UTC)
    return (dt.datetime.fromtimestamp(int(epoch), dt.UTC) if epoch else now).date().isoformat()


def _feature(spec: Number | Category) -> pb.Feature:
    feature = pb.Feature(name=spec.name, description=spec.description)
    match spec:
        case Number():
            feature.unit = spec.unit
            feature.numeric.valid_min, feature.numeric.valid_max = spec.minimum, spec.maximum
            feature.numeric.integer = spec.integer
        case Category():
            feature.categorical.names.extend(spec.categories)
    if spec.required:
        feature.required = True
    return feature


def set_covariates(task: pb.PatientRiskTask, covariates: Covariates) -> None:
    """Sets the training range of each covariate, and the value with which it is imputed."""
    for index, feature in enumerate(task.features):
        if feature.WhichOneof("kind") == "numeric":
            # The training range is stored as 32-bit floats, whose rounding must not exceed the valid range.
            feature.numeric.training_min = max(covariates.minimum[index], feature.numeric.valid_min)
            feature.numeric.training_max = min(covariates.maximum[index], feature.numeric.valid_max)
        if not feature.required:
            feature.imputed_as = covariates.replacements[index]


def embed(model: onnx.ModelProto, manifest: pb.Manifest) -> None:
    """Embeds the manifest into the model's metadata, replacing an existing one."""
    text = json_format.MessageToJson(manifest, preserving_proto_field_name=True, indent=None, sort_keys=True)
    onnx.helper.set_model_props(model, {KEY: text})


def read_manifest(path: Path) -> pb.Manifest:
    """Reads the manifest of an ONNX file.

    Raises:
        UserError: The file is missing, not ONNX, or has no manifest of a supported version.
    """
    try:
        model = onnx.load(path, load_external_data=False)
    except FileNotFoundError as error:
        raise UserError(f"{path} is missing; expected a file such as models/chest-xray/1/model.onnx") from error
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from error
    except DecodeError as error:
        raise UserError(f"{path} is not an ONNX file") from error
    texts = {entry.key: entry.value for entry in model.metadata_props}
    if KEY not in texts:
        raise UserError(f"{path} has no {KEY} in its metadata; only files that medserve-train wrote have one")
    try:
        manifest = json_format.Parse(texts[KEY], pb.Manifest())
    except json_format.ParseError as error:
        raise UserError(f"{path}: its manifest does not match the schema: {error}") from error
    if manifest.schema_version != SCHEMA_VERSION:
        raise UserError(f"{path}: manifest schema version {manifest.schema_version}, expected {SCHEMA_VERSION}")
    return manifest


def figures(manifest: pb.Manifest) -> dict[str, float]:
    """Returns every number of a manifest that is measured on the file and its data, by a readable name."""
    found: dict[str, float] = {}
    for point in manifest.image_classification.operating_points:
        for name in ("threshold", "sensitivity", "specificity"):
            found[f"operating point {point.name}: {name}"] = getattr(point, name)
    for label in manifest.image_segmentation.labels:
        found |= _label_figures(label)
    found |= _novelty_figures(manifest)
    for feature in manifest.patient_risk.features:
        found |= _feature_figures(feature)
    for group in manifest.patient_risk.risk_groups:
        found[f"risk group {group.label}: risk below"] = group.risk_below
    for evaluation in manifest.evaluations:
        if evaluation.split in SPLITS:
            found |= _evaluation_figures(evaluation)
    if manifest.HasField("quantization"):
        found[f"quantization: {manifest.quantization.metric} after it"] = manifest.quantization.metric_after
    return found


def _feature_figures(feature: pb.Feature) -> dict[str, float]:
    found: dict[str, float] = {}
    if feature.WhichOneof("missing") == "imputed_as":
        found[f"{feature.name}: imputed as"] = feature.imputed_as
    if feature.WhichOneof("kind") == "numeric":
        found[f"{feature.name}: training minimum"] = feature.numeric.training_min
        found[f"{feature.name}: training maximum"] = feature.numeric.training_max
    return found


def _label_figures(label: pb.SegmentedLabel) -> dict[str, float]:
    """Returns what was chosen and measured for a label of a segmentation model."""
    found: dict[str, float] = {
        f"{label.name}: threshold": label.threshold,
        f"{label.name}: minimum area": label.min_area_px,
    }
    if label.HasField("marker_distance"):
        found[f"{label.name}: marker distance"] = label.marker_distance
    if label.HasField("count_error"):
        found[f"{label.name}: true count over count, low"] = label.count_error.low_ratio
        found[f"{label.name}: true count over count, high"] = label.count_error.high_ratio
    for measure in label.measures:
        found[f"{measure.name}: offset in pixels"] = measure.offset_px
        found[f"{measure.name}: bias in mm"] = measure.bias_mm
        found[f"{measure.name}: limits of agreement in mm"] = measure.agreement_mm
    return found


def _novelty_figures(manifest: pb.Manifest) -> dict[str, float]:
    task = getattr(manifest, manifest.WhichOneof("task") or "image_classification")
    if not task.HasField("novelty"):
        return {}
    return {"novelty: threshold": task.novelty.threshold, "novelty: false alarms": task.novelty.false_alarms}


def _evaluation_figures(evaluation: pb.Evaluation) -> dict[str, float]:
    part = f"{evaluation.split}, {evaluation.subgroup}" if evaluation.subgroup else evaluation.split
    found: dict[str, float] = {f"{part}: size": evaluation.size}
    for metric in evaluation.metrics:
        found[f"{part}: {metric.name}"] = metric.value
        if metric.HasField("interval"):
            found[f"{part}: {metric.name}, low"] = metric.interval.low
            found[f"{part}: {metric.name}, high"] = metric.interval.high
    return found
