"""The networks: the two of the articles, exactly, and what turns raw input into theirs and their output into curves.

Everything between raw units and probabilities is a module here, so that what is trained is what is exported.
"""

from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from medserve_training.errors import UserError


def baseline_cnn(height: int, width: int, channels: int, classes: int) -> nn.Sequential:
    """The articles' image network, with Keras's valid padding: [n, channels, height, width] to logits [n, classes].

    Raises:
        UserError: The picture is too small for three convolutions and two poolings.
    """
    left = [((size - 2) // 2 - 2) // 2 - 2 for size in (height, width)]
    if min(left) < 1:
        raise UserError(f"baseline-cnn needs pictures of at least 18 x 18, these are {height} x {width}")
    return _keras_weights(
        nn.Sequential(
            nn.Conv2d(channels, 32, 3),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(32, 64, 3),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(64, 64, 3),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(64 * left[0] * left[1], 64),
            nn.ReLU(),
            nn.Linear(64, classes),
        ),
    )


def baseline_risk_cnn(features: int, outputs: int) -> nn.Sequential:
    """The articles' risk network over standardised covariates as a sequence: [n, features] to logits [n, outputs].

    Raises:
        UserError: There are too few covariates for a convolution and a pooling.
    """
    left = (features - 2) // 2
    if left < 1:
        raise UserError(f"baseline-risk-cnn needs at least 4 covariates, there are {features}")
    return _keras_weights(
        nn.Sequential(
            nn.Unflatten(1, (1, features)),
            nn.Conv1d(1, 32, 3),
            nn.ReLU(),
            nn.MaxPool1d(2),
            nn.Flatten(),
            nn.Linear(32 * left, 64),
            nn.ReLU(),
            nn.Linear(64, outputs),
        ),
    )


def _keras_weights(network: nn.Sequential) -> nn.Sequential:
    """Starts from the weights that Keras would: Glorot uniform, biases 0 (PyTorch's own differ)."""
    for layer in network:
        if isinstance(layer, (nn.Conv1d, nn.Conv2d, nn.Linear)):
            nn.init.xavier_uniform_(layer.weight)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
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


class ImageClassifier(nn.Module):
    """Pixels, uint8 [n, height, width, channels], to logits, float32 [n, classes].

    Args:
        network: Takes standardised pictures, [n, channels, height, width].
        mean: Of each channel, in units of a pixel, float [channels].
        deviation: Standard deviation of each channel, float [channels], above 0.
    """

    def __init__(self, network: nn.Module, mean: NDArray[np.float64], deviation: NDArray[np.float64]) -> None:
        super().__init__()
        self.network = network
        self.mean: Tensor
        self.deviation: Tensor
        self.register_buffer("mean", torch.tensor(mean, dtype=torch.float32)[:, None, None])
        self.register_buffer("deviation", torch.tensor(deviation, dtype=torch.float32)[:, None, None])

    def forward(self, image: Tensor) -> Tensor:
        """Moves the channels to the front, standardises each, runs the network."""
        # In this order ONNX Runtime standardises a plane at a time; with the channels last it takes one pixel at a
        # time, which was a fifth of the whole model's time.
        planes = image.permute(0, 3, 1, 2).float()
        logits: Tensor = self.network((planes - self.mean) / self.deviation)
        return logits


class ImageProbabilities(nn.Module):
    """Pixels, uint8 [n, height, width, channels], to probabilities, float32 [n, classes]: the exported graph."""

    def __init__(self, classifier: ImageClassifier) -> None:
        super().__init__()
        self.classifier = classifier

    def forward(self, image: Tensor) -> Tensor:
        """Softmax over the classifier's logits."""
        return torch.softmax(self.classifier(image), dim=1)


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
    """

    def __init__(self, model: RiskModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, features: Tensor) -> Tensor:
        """Survival at time 0 and at the end of each interval."""
        # 1 - sigmoid(x) = exp(-softplus(x))
        cumulative = torch.cumsum(functional.softplus(self.model(features)), dim=1)
        return torch.exp(-functional.pad(cumulative, (1, 0)))
