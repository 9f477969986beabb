"""Preprocessing of a risk network: imputation, encoding and standardization of covariates in clinical units."""

from collections.abc import Sequence
from itertools import groupby

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from medserve_training.data.encoding import Term


class Encoding(nn.Module):
    """Maps covariates, float32 [n, features], to columns, float32 [n, terms].

    The columns are ordered by kind and covariate, so that they do not depend on the order of the covariates.

    Args:
        terms: The terms of the columns.
        names: Names of the covariates, in the order of the input.
    """

    def __init__(self, terms: Sequence[Term], names: Sequence[str]) -> None:
        super().__init__()
        # Terms are grouped by kind, for one operation in the graph for each kind instead of each column.
        groups = groupby(sorted(terms), key=lambda term: term.kind)
        self.groups = nn.ModuleList(_Group(list(group), names) for _, group in groups)

    def forward(self, covariates: Tensor) -> Tensor:
        """Encodes each group of terms."""
        return torch.cat([group(covariates) for group in self.groups], dim=1)


class _Group(nn.Module):
    """The columns of the terms of one kind."""

    def __init__(self, terms: Sequence[Term], names: Sequence[str]) -> None:
        super().__init__()
        self.kind = terms[0].kind
        self.index: Tensor
        self.low: Tensor
        self.high: Tensor
        self.register_buffer("index", torch.tensor([names.index(term.feature) for term in terms]))
        self.register_buffer("low", torch.tensor([term.low for term in terms]))
        self.register_buffer("high", torch.tensor([term.high for term in terms]))

    def forward(self, covariates: Tensor) -> Tensor:
        """Computes the terms; see `Term`."""
        chosen = covariates[:, self.index]
        match self.kind:
            case "square":
                return (chosen - self.low).square()
            case "log":
                return torch.log(chosen + self.low)
            case "exponential":
                return torch.exp(chosen * self.low)
            case "segment":
                return torch.minimum(torch.maximum(chosen, self.low), self.high)


class Preparation(nn.Module):
    """Maps covariates in clinical units, float32 [n, features], NaN where missing, to a network's input, [n, columns].

    Rows that lack a required covariate become all NaN.

    Args:
        train: Covariates of the training split, [n, features], by which the columns are standardized.
        replacements: Imputed values of the covariates, float [features]; NaN for required ones.
        encoding: Maps imputed covariates to columns.
        limit: Absolute value to which standardized columns are clamped; None not to clamp.
    """

    def __init__(
        self,
        train: NDArray[np.float32],
        replacements: NDArray[np.float64],
        encoding: nn.Module,
        limit: float | None = None,
    ) -> None:
        super().__init__()
        self.encoding = encoding
        self.limit = limit
        self.replacements: Tensor
        self.mean: Tensor
        self.deviation: Tensor
        self.register_buffer("replacements", torch.tensor(replacements, dtype=torch.float32))
        columns = encoding(self.impute(torch.as_tensor(train))).double()
        deviation = columns.std(dim=0, correction=0)
        self.register_buffer("mean", columns.mean(dim=0).float())
        # A constant column becomes 0.
        self.register_buffer("deviation", torch.where(deviation > 0, deviation, 1).float())

    @property
    def columns(self) -> int:
        """Number of columns."""
        return len(self.mean)

    def impute(self, features: Tensor) -> Tensor:
        """Imputes missing covariates."""
        return torch.where(torch.isnan(features), self.replacements, features)

    def forward(self, features: Tensor) -> Tensor:
        """Imputes, encodes, standardizes and clamps."""
        imputed = self.impute(features)
        columns = (self.encoding(imputed) - self.mean) / self.deviation
        if self.limit is not None:
            columns = columns.clamp(-self.limit, self.limit)
        return torch.where(torch.isnan(imputed).any(dim=1, keepdim=True), torch.nan, columns)
