"""Baselines for survival networks, from scikit-survival: Cox regression, random survival forest, gradient boosting."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.model_selection import GridSearchCV, StratifiedKFold
from sksurv.ensemble import GradientBoostingSurvivalAnalysis, RandomSurvivalForest
from sksurv.linear_model import CoxPHSurvivalAnalysis
from sksurv.util import Surv

from medserve_training.data.covariates import describe
from medserve_training.data.encoding import clinical_terms
from medserve_training.data.schema import Schema
from medserve_training.data.splits import Patients
from medserve_training.networks.risk.preparation import Encoding, Preparation

Floats = NDArray[np.float64]

_LIMIT = 4.0
_RIDGES = [1.0, 3.0, 10.0, 30.0, 100.0]
INNER_FOLDS = 5


def cox(train: Patients, test: Patients, schema: Schema, times: Sequence[float], seed: int) -> Floats:
    """Predicts survival functions of the test patients, [n, times], by Cox regression on the untransformed covariates.

    Args:
        train: Patients to fit on.
        test: Patients to predict.
        schema: Their covariates.
        times: Times of the curve, from 0.
        seed: Random seed.
    """
    del seed
    model = CoxPHSurvivalAnalysis()
    return _curves(model.fit(_raw(train, train, schema), _outcome(train)), _raw(test, train, schema), times)


def cox_transformed(train: Patients, test: Patients, schema: Schema, times: Sequence[float], seed: int) -> Floats:
    """Predicts by ridge Cox regression on the schema's transforms; arguments as for `cox`.

    The penalty is chosen for the best concordance index in five-fold cross-validation on the training patients.
    """
    encoding = Encoding(clinical_terms(schema), [feature.name for feature in schema.features])
    prepare = Preparation(train.features, describe(train, schema).replacements, encoding, _LIMIT)
    columns = [prepare(torch.from_numpy(rows.features)).double().numpy() for rows in (train, test)]
    search = GridSearchCV(CoxPHSurvivalAnalysis(), {"alpha": _RIDGES}, cv=inner_folds(train, seed))
    return _curves(search.fit(columns[0], _outcome(train)).best_estimator_, columns[1], times)


def inner_folds(train: Patients, seed: int) -> list[tuple[NDArray[np.intp], NDArray[np.intp]]]:
    """Returns the inner folds of the training patients, as indices (train, test), for choosing the ridge penalty."""
    folds = StratifiedKFold(INNER_FOLDS, shuffle=True, random_state=seed)
    return list(folds.split(train.features, train.events))


def forest(train: Patients, test: Patients, schema: Schema, times: Sequence[float], seed: int) -> Floats:
    """Predicts by a random survival forest (Ishwaran et al. 2008); arguments as for `cox`."""
    model = RandomSurvivalForest(n_estimators=300, min_samples_leaf=15, max_features="sqrt", random_state=seed)
    return _curves(model.fit(_raw(train, train, schema), _outcome(train)), _raw(test, train, schema), times)


def boosting(train: Patients, test: Patients, schema: Schema, times: Sequence[float], seed: int) -> Floats:
    """Predicts by gradient boosting of Cox's partial likelihood with small trees; arguments as for `cox`."""
    model = GradientBoostingSurvivalAnalysis(
        n_estimators=150, learning_rate=0.05, max_depth=2, subsample=0.5, random_state=seed
    )
    return _curves(model.fit(_raw(train, train, schema), _outcome(train)), _raw(test, train, schema), times)


Baseline = Callable[[Patients, Patients, Schema, Sequence[float], int], Floats]
BASELINES: dict[str, Baseline] = {
    "Cox, transforms, ridge": cox_transformed,
    "Cox, raw covariates": cox,
    "random survival forest": forest,
    "gradient boosting survival": boosting,
}


def _raw(rows: Patients, train: Patients, schema: Schema) -> Floats:
    """Returns the covariates, with missing values imputed by medians and modes."""
    typical = np.nan_to_num(describe(train, schema).replacements)
    return np.where(np.isnan(rows.features), typical, rows.features).astype(np.float64)


def _outcome(rows: Patients) -> NDArray[np.void]:
    outcome: NDArray[np.void] = Surv.from_arrays(rows.events, rows.times)
    return outcome


def _curves(model: Any, columns: Floats, times: Sequence[float]) -> Floats:  # noqa: ANN401 # has no types
    """Evaluates survival functions at times, [n, times]; they are constant after the last training time."""
    steps = model.predict_survival_function(columns, return_array=True)
    after = np.searchsorted(model.unique_times_, times, side="right")
    return np.concatenate([np.ones((len(steps), 1)), steps], axis=1)[:, after]
