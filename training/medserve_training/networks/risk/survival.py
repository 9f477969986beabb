"""The risk networks, and what turns clinical units into their input and their output into survival curves.

Everything between raw units and probabilities is a module here, so that what is trained is what is exported.
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
    """The network of a recipe's table: [n, columns] to logits [n, outputs].

    Raises:
        UserError: There are too few covariates.
    """
    if isinstance(settings, BaselineRiskCnn):
        return baseline_risk_cnn(columns, outputs)
    return ProjectionCnn(settings, columns, outputs)


def baseline_risk_cnn(features: int, outputs: int) -> nn.Sequential:
    """The articles' risk network over standardised covariates as a sequence: [n, features] to logits [n, outputs].

    Raises:
        UserError: There are too few covariates for a convolution and a pooling.
    """
    left = (features - 2) // 2
    if left < 1:
        raise UserError(f"baseline-risk-cnn needs at least 4 covariates, there are {features}")
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
    """Covariates in clinical units, float32 [n, features], NaN where missing, to logits, float32 [n, outputs].

    Args:
        preparation: Covariates to the network's input.
        network: Its input to what is added to the baseline.
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
        """The logits of prepared covariates."""
        logits: Tensor = self.network(columns) + self.baseline
        # Rectifiers and poolings may swallow a NaN: a patient without a required covariate gets no figure at all.
        return torch.where(torch.isnan(columns[:, :1]), torch.nan, logits)


class SurvivalGraph(nn.Module):
    """Covariates in clinical units, float32 [n, features], to all that a file answers, in the order of `names`.

    - `survival`, float32 [n, intervals + 1]: the members' mean; 1 at time 0.
    - `member_survival` [n, members, intervals + 1], of an ensemble: each member's.
    - `novelty` [n], where there is a score.

    With the hazard h of each interval, survival is the product of 1 - h over the intervals so far (Gensheimer &
    Narasimhan 2019, eq. 2), here as the exponential of a sum: -log(1 - h) is softplus of the logit of a logistic
    hazard, and exp of the logit (the log cumulative hazard of the interval) of a proportional one.

    Args:
        members: Of the ensemble, with one preparation.
        proportional: Whether the hazards are proportional (Cox), else logistic.
        novelty: Prepared covariates to a score.
    """

    def __init__(self, members: Sequence[RiskModel], *, proportional: bool, novelty: nn.Module | None = None) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)
        self.proportional = proportional
        self.novelty = novelty

    @property
    def names(self) -> list[str]:
        """Of the outputs."""
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
