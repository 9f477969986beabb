"""Encoding of covariates as network input: terms of clinical transforms and of piecewise-linear encoding."""

from itertools import pairwise
from typing import Literal, NamedTuple

import numpy as np

from medserve_training.data.schema import Category, Number, Schema, Transform
from medserve_training.data.splits import Patients

_LARGEST = float(np.finfo(np.float32).max)


class Term(NamedTuple):
    """One input column, computed from the covariate x.

    "square" is (x - low)², "log" is ln(x + low), "exponential" is exp(low · x), "segment" is x clamped to low and
    high; of a category's index, the segment from k - 1 to k is the indicator of "category k or above", plus a constant.
    """

    kind: Literal["exponential", "log", "segment", "square"]
    feature: str
    low: float = -_LARGEST
    high: float = _LARGEST


def clinical_terms(schema: Schema) -> list[Term]:
    """Returns the terms of a schema's transforms; numbers without transforms enter linearly, categories as levels."""
    return [term for feature in schema.features for term in _clinical_terms(feature)]


def _clinical_terms(feature: Number | Category) -> list[Term]:
    if isinstance(feature, Category):
        return _levels(feature)
    return [_term(feature.name, transform) for transform in feature.transforms] or [Term("segment", feature.name)]


def _term(name: str, transform: Transform) -> Term:
    match transform.kind:
        case "linear":
            return Term("segment", name)
        case "below":
            return Term("segment", name, high=transform.parameter)
        case "square" | "log" | "exponential":
            return Term(transform.kind, name, low=transform.parameter)


def piecewise_terms(schema: Schema, train: Patients, bins: int) -> list[Term]:
    """Returns the terms of piecewise-linear encoding (Gorishniy et al. 2022, section 3.2.1), with quantile bins."""
    terms: list[Term] = []
    for feature, column in zip(schema.features, train.features.T, strict=True):
        if isinstance(feature, Category):
            terms += _levels(feature)
            continue
        inner = np.unique(np.nanquantile(column, np.arange(1, bins) / bins)).tolist()
        edges = [-_LARGEST, *inner, _LARGEST]
        terms += [Term("segment", feature.name, low, high) for low, high in pairwise(edges)]
    return terms


def _levels(feature: Category) -> list[Term]:
    return [Term("segment", feature.name, level - 1, level) for level in range(1, len(feature.categories))]
