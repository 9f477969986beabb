"""From a recipe to an ONNX file, a metrics file and plots."""

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
import onnx
import torch
from lightning_fabric import Fabric
from numpy.typing import NDArray
from rich.console import Console
from torch import nn
from torch.utils.data import TensorDataset

from medserve_training.classification_metrics import classification_metrics
from medserve_training.classification_plots import plot_classification
from medserve_training.covariates import describe
from medserve_training.export import deviation, to_onnx, write
from medserve_training.image_data import load_images
from medserve_training.inference import open_session, predict
from medserve_training.loss_plot import plot_loss
from medserve_training.losses import hazard_targets
from medserve_training.manifest import figures, image_manifest, risk_manifest
from medserve_training.measure import measure_images, measure_patients
from medserve_training.networks import (
    ImageClassifier,
    ImageProbabilities,
    RiskModel,
    SurvivalCurve,
    baseline_cnn,
    baseline_risk_cnn,
    start_at_hazard,
)
from medserve_training.patient_data import load_patients
from medserve_training.recipe import ImageTask, Recipe, StatusTask, SurvivalTask
from medserve_training.reference import reference_rows
from medserve_training.risk_plots import plot_risk
from medserve_training.schema import Schema
from medserve_training.splits import Patients, Splits
from medserve_training.train import Epoch, seed_everything, train

Input = TypeVar("Input", np.uint8, np.float32)


@dataclass(frozen=True)
class Places:
    """Where data lies, and where the model file and the report folder go."""

    data_dir: Path
    model: Path
    report: Path


def fit(recipe: Recipe, places: Places, fabric: Fabric, console: Console) -> dict[str, float]:
    """Trains a recipe and writes model (unless the task is a mere reproduction), metrics and plots.

    Args:
        recipe: What to train.
        places: Where from and where to.
        fabric: Already launched; only its first process writes.
        console: For progress.

    Returns:
        The figures, by name; empty in every process but the first.

    Raises:
        UserError: Data does not fit, or PyTorch and ONNX Runtime disagree; no model file is written then.
    """
    match recipe.task:
        case ImageTask() as task:
            return _fit_images(recipe, task, places, fabric, console)
        case SurvivalTask() as task:
            return _fit_survival(recipe, task, places, fabric, console)
        case StatusTask():
            return _fit_status(recipe, places, fabric, console)


def _fit_images(recipe: Recipe, task: ImageTask, places: Places, fabric: Fabric, console: Console) -> dict[str, float]:
    data = load_images(recipe, task, places.data_dir)
    seed_everything(recipe.seed)
    network = baseline_cnn(task.height, task.width, task.channels, len(task.labels))
    pixels = data.train.pixels
    classifier = ImageClassifier(network, pixels.mean(axis=(0, 1, 2)), pixels.std(axis=(0, 1, 2)))
    tensors = data.map(lambda rows: _tensors(rows.pixels, rows.labels))
    history = train(classifier, tensors, recipe.training, fabric, console)
    if not fabric.is_global_zero:
        return {}
    model = ImageProbabilities(classifier.cpu())
    graph, output, largest = _export(model, data.map(lambda rows: rows.pixels), "probabilities")
    manifest = image_manifest(recipe, task, data.train)
    manifest.training.export_deviation = largest
    manifest.reference.extend(reference_rows(model, manifest, recipe.seed))
    measure_images(manifest, output, data)
    write(graph, manifest, places.model)
    points = {point.name: point.threshold for point in manifest.image_classification.operating_points}
    held_out = {
        "validation": (output.validation.astype(np.float64), data.validation.labels),
        "test": (output.test.astype(np.float64), data.test.labels),
    }
    _report(recipe, history, figures(manifest), places.report)
    plot_classification(held_out, task.labels, points, places.report)
    return figures(manifest)


def _fit_survival(
    recipe: Recipe, task: SurvivalTask, places: Places, fabric: Fabric, console: Console
) -> dict[str, float]:
    data, schema = load_patients(recipe)
    covariates = describe(data.train, schema)
    seed_everything(recipe.seed)
    network = baseline_risk_cnn(len(schema.features), task.intervals)
    tensors = data.map(
        lambda rows: _tensors(rows.features, *hazard_targets(rows.times, rows.events, task.interval, task.intervals)),
    )
    _, events, at_risk = tensors.train.tensors
    start_at_hazard(network, events.sum(dim=0) / at_risk.sum(dim=0).clamp(min=1))
    risk_model = RiskModel(network, covariates.replacements, covariates.mean, covariates.deviation)
    history = train(risk_model, tensors, recipe.training, fabric, console)
    if not fabric.is_global_zero:
        return {}
    model = SurvivalCurve(risk_model.cpu())
    graph, output, largest = _export(model, data.map(lambda rows: rows.features), "survival")
    manifest = risk_manifest(recipe, task, schema, covariates, data.train)
    manifest.training.export_deviation = largest
    manifest.reference.extend(reference_rows(model, manifest, recipe.seed))
    measure_patients(manifest, output, data)
    write(graph, manifest, places.model)
    _report(recipe, history, figures(manifest), places.report)
    plot_risk(output.test.astype(np.float64), data.test, "test", manifest.patient_risk, places.report)
    return figures(manifest)


def _fit_status(recipe: Recipe, places: Places, fabric: Fabric, console: Console) -> dict[str, float]:
    data, schema = load_patients(recipe)
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
    _report(recipe, history, found, places.report)
    plot_classification(held_out, ("censored", "event seen"), {}, places.report)
    console.print(f"{recipe.name} reproduces a published figure and is not exported: no model file was written.")
    return found


def train_status(
    recipe: Recipe, data: Splits[Patients], schema: Schema, fabric: Fabric, console: Console
) -> tuple[RiskModel, list[Epoch]]:
    """Trains the articles' model of whether the event was seen; it ends on the CPU."""
    covariates = describe(data.train, schema)
    seed_everything(recipe.seed)
    network = baseline_risk_cnn(len(schema.features), outputs=1)
    model = RiskModel(network, covariates.replacements, covariates.mean, covariates.deviation)
    tensors = data.map(lambda rows: _tensors(rows.features, rows.events.astype(np.float32)))
    history = train(model, tensors, recipe.training, fabric, console)
    return model.cpu(), history


@torch.no_grad()
def status_probabilities(model: RiskModel, rows: Patients) -> NDArray[np.float64]:
    """Probabilities of no event and of an event, [n, 2], by a model with one output."""
    event = torch.sigmoid(model.eval()(torch.from_numpy(rows.features))[:, 0]).double().numpy()
    return np.stack([1 - event, event], axis=1)


def _export(
    model: nn.Module, inputs: Splits[NDArray[Input]], output_name: str
) -> tuple[onnx.ModelProto, Splits[NDArray[np.float32]], float]:
    """The graph, what ONNX Runtime makes of each split with it, and how far PyTorch is from that on validation."""
    graph = to_onnx(model, torch.from_numpy(inputs.train[:2]), output_name)
    session = open_session(graph.SerializeToString())
    output = inputs.map(lambda rows: predict(session, rows))
    return graph, output, deviation(model, output.validation, inputs.validation)


def _tensors(*arrays: NDArray[np.generic] | torch.Tensor) -> TensorDataset:
    return TensorDataset(*(torch.as_tensor(array) for array in arrays))


def _report(recipe: Recipe, history: list[Epoch], found: dict[str, float], folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    content = {
        "recipe": dataclasses.asdict(recipe),
        "epochs": [dataclasses.asdict(epoch) for epoch in history],
        "figures": found,
    }
    (folder / "metrics.json").write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    plot_loss(history, folder / "loss.png")
