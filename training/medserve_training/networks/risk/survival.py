"""The risk networks, and the graphs from covariates in clinical units to survival functions around them.

All processing between covariates and probabilities is an nn.Module, so that the trained and the exported graph agree.
"""

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from medserve_training.errors import UserError
from medserve_training.networks.layers import initialize
from medserve_training.networks.risk.preparation import Preparation
from medserve_training.networks.risk.projection import ProjectionCnn
from medserve_training.recipes.network_settings import BaselineRiskCnn, ProjectionRiskCnn


def risk_network(settings: BaselineRiskCnn | ProjectionRiskCnn, columns: int, outputs: int) -> nn.Module:
    """Builds the network of a recipe: [n, columns] to logits [n, outputs].

    Raises:
        UserError: There are too few covariates.
    """
    if isinstance(settings, BaselineRiskCnn):
        return baseline_risk_cnn(columns, outputs)
    return ProjectionCnn(settings, columns, outputs)


def baseline_risk_cnn(features: int, outputs: int) -> nn.Sequential:
    """Builds the articles' risk network on the sequence of standardized covariates: [n, features] to [n, outputs].

    Raises:
        UserError: There are too few covariates for a convolution and a pooling.
    """
    left = (features - 2) // 2
    if left < 1:
        raise UserError(f"baseline-risk-cnn needs at least 4 covariates, but there are {features}")
    network = nn.Sequential(
        nn.Unflatten(1, (1, features)),
        nn.Conv1d(1, 32, 3),
        nn.ReLU(),
        nn.MaxPool1d(2),
        nn.Flatten(),
        nn.Linear(32 * left, 64),
        nn.ReLU(),
        nn.Linear(64, outputs),
    )
    initialize(network, "glorot-uniform")
    return network


class RiskModel(nn.Module):
    """Maps covariates in clinical units, float32 [n, features], NaN where missing, to logits, float32 [n, outputs].

    Args:
        preparation: Maps covariates to the network's input.
        network: Maps its input to logits relative to the baseline.
        baseline: Logits of the cohort, [outputs]; see `metrics.baseline_hazard`.
    """

    def __init__(self, preparation: Preparation, network: nn.Module, baseline: Tensor) -> None:
        super().__init__()
        self.preparation = preparation
        self.network = network
        self.baseline: Tensor
        self.register_buffer("baseline", baseline)

    def forward(self, features: Tensor) -> Tensor:
        """Prepares the covariates and runs the network."""
        return self.logits(self.preparation(features))

    def logits(self, columns: Tensor) -> Tensor:
        """Computes the logits of prepared covariates."""
        logits: Tensor = self.network(columns) + self.baseline
        # ReLU and pooling may not propagate NaN, but a patient without a required covariate must not get a risk.
        return torch.where(torch.isnan(columns[:, :1]), torch.nan, logits)


class SurvivalGraph(nn.Module):
    """Maps covariates in clinical units, float32 [n, features], to all outputs of the file, in the order of `names`.

    - `survival`, float32 [n, intervals + 1]: the mean over the members; 1 at time 0.
    - `member_survival` [n, members, intervals + 1], for an ensemble: that of each member.
    - `novelty` [n], if there is a score.

    Survival is the product of 1 - h over the elapsed intervals, where h is the hazard of an interval (Gensheimer &
    Narasimhan 2019, eq. 2), computed as the exponential of a sum: -log(1 - h) is the softplus of the logit of a
    logistic hazard, and the exponential of the logit (the log cumulative hazard of the interval) of a proportional one.

    Args:
        members: Members of the ensemble, which share one preparation.
        proportional: Whether the hazards are proportional (Cox) instead of logistic.
        novelty: Maps prepared covariates to a score; None to omit the output.
    """

    def __init__(self, members: Sequence[RiskModel], *, proportional: bool, novelty: nn.Module | None = None) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)
        self.proportional = proportional
        self.novelty = novelty

    @property
    def names(self) -> list[str]:
        """Names of the outputs."""
        names = ["survival"]
        names += ["member_survival"] if len(self.members) > 1 else []
        return names + (["novelty"] if self.novelty is not None else [])

    def forward(self, features: Tensor) -> tuple[Tensor, ...]:
        """Prepares the covariates once and runs every member."""
        members = [cast("RiskModel", member) for member in self.members]
        columns = members[0].preparation(features)
        logits = torch.stack([member.logits(columns) for member in members], dim=1)
        hazards = torch.exp(logits) if self.proportional else functional.softplus(logits)
        survival = torch.exp(-functional.pad(torch.cumsum(hazards, dim=2), (1, 0)))
        outputs = [survival.mean(dim=1)]
        if len(members) > 1:
            outputs.append(survival)
        if self.novelty is not None:
            outputs.append(self.novelty(columns))
        return tuple(outputs)
