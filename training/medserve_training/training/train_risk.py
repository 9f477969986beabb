"""Trains risk networks, for `fit`, cross-validation and the reproduction of the articles."""

from typing import cast

import numpy as np
import torch
from lightning_fabric import Fabric
from numpy.typing import NDArray
from rich.console import Console
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from medserve_training.data.covariates import describe
from medserve_training.data.encoding import clinical_terms, piecewise_terms
from medserve_training.data.schema import Schema
from medserve_training.data.splits import Patients, Splits
from medserve_training.metrics.baseline_hazard import breslow, cohort_logits, refit_logits
from medserve_training.networks.novelty import Mahalanobis
from medserve_training.networks.risk.preparation import Encoding, Preparation
from medserve_training.networks.risk.survival import RiskModel, SurvivalGraph, risk_network
from medserve_training.recipes.network_settings import BaselineRiskCnn, RiskNetworkSettings
from medserve_training.recipes.recipe import Recipe, SurvivalTask
from medserve_training.training.losses import hazard_targets
from medserve_training.training.train import Epoch, tensors, train_members

# Number of standard deviations from the mean to which a column is clamped.
_LIMIT = 4.0


def train_survival(
    recipe: Recipe, task: SurvivalTask, data: Splits[Patients], schema: Schema, fabric: Fabric, console: Console
) -> tuple[SurvivalGraph, list[Epoch]]:
    """Trains the members of a survival model on the training split and moves them to the CPU.

    Args:
        recipe: Specifies network, training and seed.
        task: Its task.
        data: The patients; the test split is not used.
        schema: Their covariates.
        fabric: A launched Fabric.
        console: Receives progress.
    """
    proportional = recipe.training.loss == "cox"
    settings = cast("RiskNetworkSettings", recipe.network)  # the recipe has checked it against the task
    preparation = prepare_covariates(settings, data.train, schema)
    rows = data.map(lambda part: _targets(part, task, proportional=proportional))
    start = torch.zeros(1) if proportional else cohort_logits(*rows.train.tensors[1:])

    def build() -> RiskModel:
        return RiskModel(preparation, risk_network(settings, preparation.columns, len(start)), start.clone())

    members, history = train_members(build, rows, recipe.training, recipe.seed, fabric, console)
    for member in members:
        _refit_baseline(member, data.train, task, proportional=proportional)
    return SurvivalGraph(members, proportional=proportional, novelty=_novelty(preparation, data.train)), history


def train_status(
    recipe: Recipe, data: Splits[Patients], schema: Schema, fabric: Fabric, console: Console
) -> tuple[nn.ModuleList, list[Epoch]]:
    """Trains classifiers of whether the event was observed and moves them to the CPU."""
    settings = cast("RiskNetworkSettings", recipe.network)
    preparation = prepare_covariates(settings, data.train, schema)

    def build() -> RiskModel:
        network = risk_network(settings, preparation.columns, outputs=1)
        return RiskModel(preparation, network, torch.zeros(1))

    rows = data.map(lambda part: tensors(part.features, part.events.astype(np.float32)))
    members, history = train_members(build, rows, recipe.training, recipe.seed, fabric, console)
    return nn.ModuleList(members), history


@torch.no_grad()
def status_probabilities(members: nn.ModuleList, rows: Patients) -> NDArray[np.float64]:
    """Returns the probabilities of no event and of an event, [n, 2], averaged over single-output models."""
    features = torch.from_numpy(rows.features)
    single = [torch.sigmoid(member.eval()(features)[:, 0]) for member in members]
    event = torch.stack(single).mean(dim=0).double().numpy()
    return np.stack([1 - event, event], axis=1)


def prepare_covariates(settings: RiskNetworkSettings, train: Patients, schema: Schema) -> Preparation:
    """Fits imputation, encoding and standardization to the training split."""
    replacements = describe(train, schema).replacements
    if isinstance(settings, BaselineRiskCnn):
        return Preparation(train.features, replacements, nn.Identity())
    clinical = settings.encoding == "clinical"
    terms = clinical_terms(schema) if clinical else piecewise_terms(schema, train, settings.bins)
    encoding = Encoding(terms, [feature.name for feature in schema.features])
    return Preparation(train.features, replacements, encoding, _LIMIT)


def _targets(rows: Patients, task: SurvivalTask, *, proportional: bool) -> TensorDataset:
    if proportional:
        return tensors(rows.features, rows.times.astype(np.float32), rows.events.astype(np.float32))
    return tensors(rows.features, *hazard_targets(rows.times, rows.events, task.interval, task.intervals))


@torch.no_grad()
def _refit_baseline(model: RiskModel, train: Patients, task: SurvivalTask, *, proportional: bool) -> None:
    """Refits the baseline hazard to the final effects."""
    logits = model.eval()(torch.from_numpy(train.features))
    _, first, second = _targets(train, task, proportional=proportional).tensors
    if proportional:
        ends = torch.tensor(task.curve_times[1:], dtype=torch.float32)
        model.baseline = breslow(logits[:, 0], first, second, ends)
    else:
        model.baseline = model.baseline + refit_logits(logits, first, second)


def _novelty(preparation: Preparation, train: Patients) -> nn.Module:
    columns: Tensor = preparation(torch.from_numpy(train.features))
    return Mahalanobis(columns.double().numpy(), np.zeros(len(columns), dtype=np.int64))
