"""Synthetic patients that represent the cohort as the background of Shapley values."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from medserve_training.data.schema import Category, Number, Schema
from medserve_training.data.splits import Patients

Floats = NDArray[np.float64]

# Exact Shapley values of eight covariates take 2^8 rows for each patient of the background.
SIZE = 4
_DRAWS = 500
# Significant digits of a synthetic number.
_DIGITS = 2


def background(
    train: Patients, schema: Schema, survival: Callable[[NDArray[np.float32]], NDArray[np.float32]], seed: int
) -> NDArray[np.float32]:
    """Generates patients, float32 [4, features], whose mean survival curve is close to the cohort's.

    Each covariate is sampled from its own values in the training split, one from each quartile and in random order
    (Latin hypercube sampling), and rounded. Of 500 such sets, those that share the fewest rows with the training split
    are kept: usually none, unless the covariates have so few values that nearly every combination of them occurs
    there. Of these, the one with the nearest mean survival is returned.

    Args:
        train: The training split.
        schema: Its covariates.
        survival: Maps covariates to survival, [n, curve times].
        seed: Seed of the sampling.
    """
    random = np.random.default_rng(seed)
    sets = np.stack([_draw(train, schema, random) for _ in range(_DRAWS)])
    known = {row.tobytes() for row in train.features}
    shared = np.array([sum(row.tobytes() in known for row in rows) for rows in sets])
    sets = sets[shared == shared.min()]
    curves = survival(sets.reshape(-1, sets.shape[2])).reshape(len(sets), SIZE, -1)
    apart = np.abs(curves.mean(axis=1) - survival(train.features).mean(axis=0)).max(axis=1)
    nearest: NDArray[np.float32] = sets[np.argmin(apart)]
    return nearest


def _draw(train: Patients, schema: Schema, random: np.random.Generator) -> NDArray[np.float32]:
    columns = [
        _draw_covariate(feature, column[~np.isnan(column)].astype(np.float64), random)
        for feature, column in zip(schema.features, train.features.T, strict=True)
    ]
    return np.stack(columns, axis=1).astype(np.float32)


def _draw_covariate(feature: Number | Category, values: Floats, random: np.random.Generator) -> Floats:
    places = (random.permutation(SIZE) + random.random(SIZE)) / SIZE
    drawn: Floats = np.quantile(values, places, method="nearest")
    if isinstance(feature, Number):
        rounded = np.array([float(f"{value:.{_DIGITS}g}") for value in drawn])
        drawn = np.clip(rounded, feature.minimum, feature.maximum)
    return drawn
