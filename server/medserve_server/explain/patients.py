"""Explanations of risk predictions: validates the requested reasons, prepares model rows and fills the results."""

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from medserve_proto.v1.manifest_pb2 import PatientRiskTask
from medserve_proto.v1.patient_risk_pb2 import (
    Contribution,
    FeatureValue,
    PatientResult,
    RiskReasons,
    ShapleyValues,
    WhatIfCurve,
    WhatIfPoint,
)
from medserve_server.errors import FieldViolation, InvalidInput, WrongModel, listing
from medserve_server.explain import shapley, what_if
from medserve_server.inputs.patients import PatientReader


class ExplainedPatients:
    """Patients to be explained, with the rows that the model must compute for them.

    Attributes:
        kinds: the requested reasons, and the number of rows that each adds to the patients.
        rows: float32 [rows, features]: the patients, followed by the additional rows of each patient in order.
        column: column of the explained horizon in the survival curve.
    """

    def __init__(
        self,
        reasons: RiskReasons,
        model: str,
        task: PatientRiskTask,
        reader: PatientReader,
        patients: NDArray[np.float32],
        max_rows: int,
    ) -> None:
        """Validates the requested reasons and creates the rows.

        Args:
            reasons: at least one reason requested by the client.
            model: name of the model.
            task: task in the model's manifest.
            reader: reader of the model's features.
            patients: float32 [patients, features].
            max_rows: maximum number of rows per request.

        Raises:
            InvalidInput: a horizon or feature does not exist, a range is invalid, or there are too many rows.
            WrongModel: the model does not support a requested reason.
        """
        self._reasons, self._task, self._reader = reasons, task, reader
        background = np.array([one.features for one in task.background], np.float32)
        if reasons.shapley and not task.background:
            raise WrongModel(f"model {model} was exported without background patients, which Shapley values require")
        if reasons.shapley and len(task.features) > shapley.MAX_FEATURES:
            raise WrongModel(
                f"model {model} has {len(task.features)} features; "
                f"exact Shapley values are computed for up to {shapley.MAX_FEATURES}"
            )
        if problems := list(self._problems()):
            raise InvalidInput(problems)
        horizon = reasons.horizon or task.reference_horizon
        self._horizon = next(one for one in task.horizons if one.label == horizon)
        self.column = list(task.curve_times).index(self._horizon.time)
        self._curve = what_if.values(reasons.what_if, reader) if reasons.HasField("what_if") else np.empty(0)
        self.kinds = {}
        if reasons.shapley:
            self.kinds["shapley"] = sum(shapley.rows_needed(patient, background) for patient in patients)
        if reasons.HasField("what_if"):
            self.kinds["what_if"] = len(patients) * len(self._curve)
        if (total := len(patients) + sum(self.kinds.values())) > max_rows:
            text = f"needs {total} rows for {len(patients)} patients, at most {max_rows} are computed per request"
            largest = max(self.kinds, key=self.kinds.__getitem__)
            raise InvalidInput.of(f"reasons.{largest}", f"{text}; send fewer patients per request", "rows")
        self._positions: list[NDArray[np.intp]] = []
        self.rows = np.concatenate([patients, *self._added(patients, background)])

    def add_to(self, results: Sequence[PatientResult], survival: NDArray[np.generic]) -> None:
        """Adds the reasons to the results, given the survival curves of all rows."""
        risks = 1 - survival[:, self.column].astype(np.float64)
        start = len(results)
        for index, result in enumerate(results):
            if self._reasons.shapley:
                position = self._positions[index]
                used = int(position.max()) + 1
                self._add_shapley(result, risks[start : start + used][position].mean(axis=1), risks[index])
                start += used
            if self._reasons.HasField("what_if"):
                self._add_what_if(result, risks[start : start + len(self._curve)])
                start += len(self._curve)

    def _problems(self) -> Iterator[FieldViolation]:
        reasons = self._reasons
        horizons = [horizon.label for horizon in self._task.horizons]
        if reasons.horizon and reasons.horizon not in horizons:
            text = f"is {reasons.horizon[:64]!r}, expected one of {listing(horizons)}"
            yield FieldViolation("reasons.horizon", text)
        if reasons.HasField("what_if"):
            yield from what_if.problems(reasons.what_if, self._reader)

    def _added(self, patients: NDArray[np.float32], background: NDArray[np.float32]) -> Iterator[NDArray[np.float32]]:
        """Yields the additional rows of each patient."""
        for patient in patients:
            if self._reasons.shapley:
                rows, position = shapley.hybrids(patient, background)
                self._positions.append(position)
                yield rows
            if self._reasons.HasField("what_if"):
                curve = np.repeat(patient[None], len(self._curve), axis=0)
                curve[:, self._reader.columns[self._reasons.what_if.feature].position] = self._curve
                yield curve

    def _add_shapley(self, result: PatientResult, values: NDArray[np.float64], risk: float) -> None:
        values[-1] = risk  # the value of the full coalition is the risk itself; equal except for rounding
        contributions = shapley.shapley_values(values).tolist()
        result.shapley.CopyFrom(
            ShapleyValues(
                horizon=self._horizon.label,
                base_risk=values[0],
                contributions=[
                    Contribution(feature=feature, value=value)
                    for feature, value in zip(self._reader.columns, contributions, strict=True)
                ],
            )
        )

    def _add_what_if(self, result: PatientResult, risks: NDArray[np.float64]) -> None:
        feature = self._reasons.what_if.feature
        names = list(self._reader.columns[feature].categories)
        result.what_if.CopyFrom(
            WhatIfCurve(
                horizon=self._horizon.label,
                feature=feature,
                points=[
                    WhatIfPoint(value=_feature_value(value, names), risk=risk)
                    for value, risk in zip(self._curve.tolist(), risks.tolist(), strict=True)
                ],
            )
        )


def _feature_value(value: float, names: list[str]) -> FeatureValue:
    return FeatureValue(category=names[int(value)]) if names else FeatureValue(number=value)
