"""How unlike the training data an input is: the Mahalanobis distance of a network's last features."""

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.covariance import LedoitWolf
from torch import Tensor, nn


class Mahalanobis(nn.Module):
    """Features [n, d] to the distance to the nearest class, [n].

    Each class has its mean, all share one covariance (Lee et al. 2018, eq. 2; the root of it here), shrunk as Ledoit &
    Wolf (2004) do, since it has thousands of entries.

    Args:
        features: Of the training split, [n, d].
        labels: Its classes, [n]; each occurs.
    """

    def __init__(self, features: NDArray[np.float64], labels: NDArray[np.int64]) -> None:
        super().__init__()
        means = np.stack([features[labels == label].mean(axis=0) for label in np.unique(labels)])
        precision = LedoitWolf(assume_centered=True).fit(features - means[labels]).precision_
        # Distances are those of a plain space that this leads to: x P x = |x R|² with P = R Rᵀ.
        root = np.linalg.cholesky(precision)
        self.root: Tensor
        self.means: Tensor
        self.register_buffer("root", torch.tensor(root, dtype=torch.float32))
        self.register_buffer("means", torch.tensor(means @ root, dtype=torch.float32))

    def forward(self, features: Tensor) -> Tensor:
        """The root of the smallest squared distance."""
        apart = (features @ self.root)[:, None, :] - self.means
        return apart.square().sum(dim=2).amin(dim=1).sqrt()
