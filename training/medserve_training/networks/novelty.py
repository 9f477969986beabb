"""Novelty score: the Mahalanobis distance of a network's last features from the training data."""

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.covariance import LedoitWolf
from torch import Tensor, nn


class Mahalanobis(nn.Module):
    """Maps features [n, d] to the distance to the nearest class, [n].

    Each class has its own mean, and all classes share one covariance (Lee et al. 2018, eq. 2; here, its square root),
    with Ledoit-Wolf shrinkage (2004), since it has thousands of entries.

    Args:
        features: Features of the training split, [n, d].
        labels: Classes of the training split, [n]; every class has to occur.
    """

    def __init__(self, features: NDArray[np.float64], labels: NDArray[np.int64]) -> None:
        super().__init__()
        means = np.stack([features[labels == label].mean(axis=0) for label in np.unique(labels)])
        precision = LedoitWolf(assume_centered=True).fit(features - means[labels]).precision_
        # Whitening: distances are Euclidean after multiplication by R, since x P x = |x R|² with P = R Rᵀ.
        root = np.linalg.cholesky(precision)
        self.root: Tensor
        self.means: Tensor
        self.register_buffer("root", torch.tensor(root, dtype=torch.float32))
        self.register_buffer("means", torch.tensor(means @ root, dtype=torch.float32))

    def forward(self, features: Tensor) -> Tensor:
        """Computes the smallest distance to a class mean."""
        apart = (features @ self.root)[:, None, :] - self.means
        return apart.square().sum(dim=2).amin(dim=1).sqrt()
