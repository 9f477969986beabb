"""What a survival network has to beat: Cox regression, survival forests and boosting, as scikit-survival has them."""

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
    """Cox regression on the covariates as they are: survival of the test patients, [n, times].

    Args:
        train: Patients to fit on.
        test: Patients to predict.
        schema: Their covariates.
        times: Of the curve, from 0 on.
        seed: Of what is random.
    """
    del seed
    model = CoxPHSurvivalAnalysis()
    return _curves(model.fit(_raw(train, train, schema), _outcome(train)), _raw(test, train, schema), times)


def cox_transformed(train: Patients, test: Patients, schema: Schema, times: Sequence[float], seed: int) -> Floats:
    """Cox regression with ridge on the schema's transforms; arguments as for `cox`.

    The ridge is the one with the best concordance over five folds of the training patients.
    """
    encoding = Encoding(clinical_terms(schema), [feature.name for feature in schema.features])
    prepare = Preparation(train.features, describe(train, schema).replacements, encoding, _LIMIT)
    columns = [prepare(torch.from_numpy(rows.features)).double().numpy() for rows in (train, test)]
    search = GridSearchCV(CoxPHSurvivalAnalysis(), {"alpha": _RIDGES}, cv=inner_folds(train, seed))
    return _curves(search.fit(columns[0], _outcome(train)).best_estimator_, columns[1], times)


def inner_folds(train: Patients, seed: int) -> list[tuple[NDArray[np.intp], NDArray[np.intp]]]:
    """The folds of the training patients, as indices (train, test), over which a ridge is chosen."""
    folds = StratifiedKFold(INNER_FOLDS, shuffle=True, random_state=seed)
    return list(folds.split(train.features, train.events))


def forest(train: Patients, test: Patients, schema: Schema, times: Sequence[float], seed: int) -> Floats:
    """Random survival forest (Ishwaran et al. 2008); arguments as for `cox`."""
    model = RandomSurvivalForest(n_estimators=300, min_samples_leaf=15, max_features="sqrt", random_state=seed)
    return _curves(model.fit(_raw(train, train, schema), _outcome(train)), _raw(test, train, schema), times)


def boosting(train: Patients, test: Patients, schema: Schema, times: Sequence[float], seed: int) -> Floats:
    """Gradient boosting of Cox's partial likelihood with small trees; arguments as for `cox`."""
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
    """Covariates with medians and modes in the place of missing ones."""
    typical = np.nan_to_num(describe(train, schema).replacements)
    return np.where(np.isnan(rows.features), typical, rows.features).astype(np.float64)


def _outcome(rows: Patients) -> NDArray[np.void]:
    outcome: NDArray[np.void] = Surv.from_arrays(rows.events, rows.times)
    return outcome


def _curves(model: Any, columns: Floats, times: Sequence[float]) -> Floats:  # noqa: ANN401 # has no types
    """Survival at some times, [n, times]; after the last training patient it stays as it was then."""
    steps = model.predict_survival_function(columns, return_array=True)
    after = np.searchsorted(model.unique_times_, times, side="right")
    return np.concatenate([np.ones((len(steps), 1)), steps], axis=1)[:, after]
