"""Trains a survival or status recipe and writes an ONNX file (survival only), metrics and plots."""

import numpy as np
import torch
from lightning_fabric import Fabric
from rich.console import Console

from medserve_proto.v1 import manifest_pb2 as pb
from medserve_training.data.background import background
from medserve_training.data.covariates import describe
from medserve_training.data.data_checks import check_patients
from medserve_training.data.patient_data import load_patients
from medserve_training.export.checksums import update_checksum
from medserve_training.export.inference import open_session, predict
from medserve_training.export.manifest import figures, risk_manifest
from medserve_training.export.measure_risk import FEWEST_EVENTS, measure_patients
from medserve_training.export.onnx_file import deviation, to_onnx, write
from medserve_training.export.reference import reference_rows
from medserve_training.metrics.classification import classification_metrics
from medserve_training.plots.classification import plot_classification
from medserve_training.plots.risk import plot_risk
from medserve_training.recipes.recipe import Recipe, SurvivalTask
from medserve_training.run_paths import RunPaths
from medserve_training.staging import staged
from medserve_training.training.report import write_report
from medserve_training.training.train_risk import status_probabilities, train_status, train_survival


def fit_survival(
    recipe: Recipe, task: SurvivalTask, paths: RunPaths, fabric: Fabric, console: Console
) -> dict[str, float]:
    """Trains a survival model; arguments and errors as for `fit`."""
    data, schema = load_patients(recipe)
    check_patients(data, recipe, schema)
    model, history = train_survival(recipe, task, data, schema, fabric, console)
    if not fabric.is_global_zero:
        return {}
    graph = to_onnx(model, torch.from_numpy(data.train.features[:2]), model.names)
    session = open_session(graph.SerializeToString())
    manifest = risk_manifest(recipe, task, schema, describe(data.train, schema), data.train)
    made_up = background(data.train, schema, lambda rows: predict(session, rows), recipe.seed)
    manifest.patient_risk.background.extend(pb.BackgroundPatient(features=row) for row in made_up.tolist())
    output = measure_patients(manifest, session, data, ["validation"], task.subgroups)
    if not manifest.evaluations[0].metrics:
        console.print(
            f"The validation split has fewer than {FEWEST_EVENTS} events, too few to evaluate the model on it."
        )
    manifest.training.export_deviation = deviation(model, output["validation"], data.validation.features)
    manifest.reference.extend(reference_rows(model, manifest, recipe.seed))
    with staged() as stage:
        report = stage.folder(paths.report)
        write_report(recipe, history, figures(manifest), report)
        plot_risk(output["validation"], data.validation, "validation", manifest.patient_risk, report)
        file = write(graph, manifest, paths.model, stage)
        update_checksum(paths.model, file.read_bytes(), stage)
    return figures(manifest)


def fit_status(recipe: Recipe, paths: RunPaths, fabric: Fabric, console: Console) -> dict[str, float]:
    """Trains the status model, which is not exported; arguments and errors as for `fit`."""
    data, schema = load_patients(recipe)
    check_patients(data, recipe, schema)
    model, history = train_status(recipe, data, schema, fabric, console)
    if not fabric.is_global_zero:
        return {}
    held_out = {
        split: (status_probabilities(model, rows), rows.events.astype(np.int64))
        for split, rows in (("validation", data.validation), ("test", data.test))
    }
    found = {
        f"{split}: {metric.name}": metric.value
        for split, (probabilities, labels) in held_out.items()
        for metric in classification_metrics(probabilities, labels, None)
    }
    with staged() as stage:
        report = stage.folder(paths.report)
        write_report(recipe, history, found, report)
        plot_classification(held_out, ("censored", "event seen"), [], report)
    console.print(f"{recipe.name} reproduces a published figure and is not exported: no model file was written.")
    return found
