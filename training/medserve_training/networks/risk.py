"""The risk networks, and what turns clinical units into their input and their output into survival curves.

Everything between raw units and probabilities is a module here, so that what is trained is what is exported.
"""

from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from medserve_training.errors import UserError
from medserve_training.network_settings import RiskNetwork
from medserve_training.networks.layers import initialize


def risk_network(settings: RiskNetwork, features: int, outputs: int) -> nn.Sequential:
    """The network of a recipe's table: [n, features] to logits [n, outputs]; its last layer is linear.

    Raises:
        UserError: There are too few covariates.
    """
    match settings.name:
        case "baseline-risk-cnn":
            return baseline_risk_cnn(features, outputs)


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


def start_at_hazard(network: nn.Sequential, hazard: Tensor) -> None:
    """Sets the last layer's biases so that an untrained network starts near the cohort's hazards.

    Otherwise it starts at a hazard of one half and spends its epochs on the mean instead of on differences.

    Args:
        network: Ends with a linear layer with one output for each interval.
        hazard: Of the cohort in each interval, [intervals].
    """
    with torch.no_grad():
        cast("nn.Linear", network[-1]).bias.copy_(torch.logit(hazard, eps=1e-4))


class RiskModel(nn.Module):
    """Covariates in clinical units, float32 [n, features], NaN where missing, to logits, float32 [n, outputs].

    Args:
        network: Takes standardised covariates.
        replacements: What a missing covariate becomes, float [features]; NaN where it may not be missing.
        mean: Of each covariate, float [features].
        deviation: Standard deviation of each covariate, float [features], above 0.
    """

    def __init__(
        self,
        network: nn.Module,
        replacements: NDArray[np.float64],
        mean: NDArray[np.float64],
        deviation: NDArray[np.float64],
    ) -> None:
        super().__init__()
        self.network = network
        self.replacements: Tensor
        self.mean: Tensor
        self.deviation: Tensor
        self.register_buffer("replacements", torch.tensor(replacements, dtype=torch.float32))
        self.register_buffer("mean", torch.tensor(mean, dtype=torch.float32))
        self.register_buffer("deviation", torch.tensor(deviation, dtype=torch.float32))

    def forward(self, features: Tensor) -> Tensor:
        """Imputes, standardises, runs the network."""
        imputed = torch.where(torch.isnan(features), self.replacements, features)
        logits: Tensor = self.network((imputed - self.mean) / self.deviation)
        # Rectifiers and poolings may swallow a NaN: a patient without a required covariate gets no figure at all.
        return torch.where(torch.isnan(imputed).any(dim=1, keepdim=True), torch.nan, logits)


class SurvivalCurve(nn.Module):
    """Covariates in clinical units, float32 [n, features], to survival, float32 [n, intervals + 1]: the exported graph.

    With the hazard h of each interval, survival is the product of 1 - h over the intervals so far
    (Gensheimer & Narasimhan 2019, eq. 2), here as the exponential of a sum; it is 1 at time 0.

    Args:
        members: Of the ensemble, whose survival is averaged.
    """

    def __init__(self, *members: RiskModel) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)

    def forward(self, features: Tensor) -> Tensor:
        """Survival at time 0 and at the end of each interval."""
        curves = [_survival(member(features)) for member in self.members]
        return curves[0] if len(curves) == 1 else torch.stack(curves, dim=1).mean(dim=1)


def _survival(logits: Tensor) -> Tensor:
    # 1 - sigmoid(x) = exp(-softplus(x))
    cumulative = torch.cumsum(functional.softplus(logits), dim=1)
    return torch.exp(-functional.pad(cumulative, (1, 0)))
