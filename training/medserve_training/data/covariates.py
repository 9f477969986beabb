"""Statistics of each covariate in the training split: range, imputed value, mean and standard deviation."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from medserve_training.data.schema import Category, Schema
from medserve_training.data.splits import Patients
from medserve_training.errors import UserError

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Covariates:
    """Statistics of the covariates, each float64 [features], in clinical units.

    Attributes:
        minimum: Minimum in the training split.
        maximum: Maximum in the training split.
        replacements: Imputed value: the median of a number, the mode of a category; NaN for a required covariate.
        mean: Mean after imputation.
        deviation: Standard deviation after imputation.
    """

    minimum: Floats
    maximum: Floats
    replacements: Floats
    mean: Floats
    deviation: Floats


def describe(train: Patients, schema: Schema) -> Covariates:
    """Computes the statistics of the covariates of a training split.

    Raises:
        UserError: A covariate is missing throughout or has one value only.
    """
    columns = train.features.astype(np.float64).T
    for feature, column in zip(schema.features, columns, strict=True):
        if np.unique(column[~np.isnan(column)]).size < 2:
            raise UserError(f"{feature.name}: has fewer than two values in the training split; leave the covariate out")
    typical = [
        np.bincount(column[~np.isnan(column)].astype(int)).argmax()
        if isinstance(feature, Category)
        else np.nanmedian(column)
        for feature, column in zip(schema.features, columns, strict=True)
    ]
    required = [feature.required for feature in schema.features]
    imputed = np.where(np.isnan(train.features), typical, train.features).astype(np.float64)
    return Covariates(
        minimum=np.nanmin(columns, axis=1),
        maximum=np.nanmax(columns, axis=1),
        replacements=np.where(required, np.nan, typical),
        mean=imputed.mean(axis=0),
        deviation=imputed.std(axis=0),
    )
