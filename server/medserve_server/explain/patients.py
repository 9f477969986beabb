"""What a request asks to be told about its patients: checks it, has it computed, and puts it into the results."""

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
    """Patients to be explained: the rows that the model has to compute for them, and what those mean.

    Attributes:
        kinds: the reasons asked for, and how many rows each adds to the patients.
        rows: float32 [rows, features]: the patients, and behind them what each of them needs in its turn.
        column: of the explained horizon in the survival curve.
    """

    def __init__(
        self,
        wishes: RiskReasons,
        model: str,
        task: PatientRiskTask,
        reader: PatientReader,
        patients: NDArray[np.float32],
        max_rows: int,
    ) -> None:
        """Checks the wishes and makes the rows.

        Args:
            wishes: with at least one kind of reason.
            model: its name.
            task: of its manifest.
            reader: of its features.
            patients: float32 [patients, features].
            max_rows: of one request.

        Raises:
            InvalidInput: a horizon, feature or range that is not there, or too many rows.
            WrongModel: the model was exported without what is asked for.
        """
        self._wishes, self._task, self._reader = wishes, task, reader
        background = np.array([one.features for one in task.background], np.float32)
        if wishes.shapley and not task.background:
            raise WrongModel(f"model {model} was exported without background patients, which Shapley values need")
        if wishes.shapley and len(task.features) > shapley.MAX_FEATURES:
            reason = f"has {len(task.features)} features, exact ones are computed for up to {shapley.MAX_FEATURES}"
            raise WrongModel(f"no Shapley values for model {model}: it {reason}")
        if problems := list(self._problems()):
            raise InvalidInput(problems)
        horizon = wishes.horizon or task.reference_horizon
        self._horizon = next(one for one in task.horizons if one.label == horizon)
        self.column = list(task.curve_times).index(self._horizon.time)
        self._curve = what_if.values(wishes.what_if, reader) if wishes.HasField("what_if") else np.empty(0)
        self.kinds = {}
        if wishes.shapley:
            self.kinds["shapley"] = sum(shapley.rows_needed(patient, background) for patient in patients)
        if wishes.HasField("what_if"):
            self.kinds["what_if"] = len(patients) * len(self._curve)
        if (total := len(patients) + sum(self.kinds.values())) > max_rows:
            text = f"needs {total} rows for {len(patients)} patients, at most {max_rows} are computed for one request"
            largest = max(self.kinds, key=self.kinds.__getitem__)
            raise InvalidInput.of(f"reasons.{largest}", f"{text}; send fewer patients at once", "rows")
        self._positions: list[NDArray[np.intp]] = []
        self.rows = np.concatenate([patients, *self._added(patients, background)])

    def add_to(self, results: Sequence[PatientResult], survival: NDArray[np.generic]) -> None:
        """Puts the reasons into the results, given the survival curves of all rows."""
        risks = 1 - survival[:, self.column].astype(np.float64)
        start = len(results)
        for index, result in enumerate(results):
            if self._wishes.shapley:
                position = self._positions[index]
                used = int(position.max()) + 1
                self._add_shapley(result, risks[start : start + used][position].mean(axis=1), risks[index])
                start += used
            if self._wishes.HasField("what_if"):
                self._add_what_if(result, risks[start : start + len(self._curve)])
                start += len(self._curve)

    def _problems(self) -> Iterator[FieldViolation]:
        wishes = self._wishes
        horizons = [horizon.label for horizon in self._task.horizons]
        if wishes.horizon and wishes.horizon not in horizons:
            text = f"is {wishes.horizon[:64]!r}, expected one of {listing(horizons)}"
            yield FieldViolation("reasons.horizon", text)
        if wishes.HasField("what_if"):
            yield from what_if.problems(wishes.what_if, self._reader)

    def _added(self, patients: NDArray[np.float32], background: NDArray[np.float32]) -> Iterator[NDArray[np.float32]]:
        """The rows behind the patients'."""
        for patient in patients:
            if self._wishes.shapley:
                rows, position = shapley.hybrids(patient, background)
                self._positions.append(position)
                yield rows
            if self._wishes.HasField("what_if"):
                curve = np.repeat(patient[None], len(self._curve), axis=0)
                curve[:, self._reader.columns[self._wishes.what_if.feature].position] = self._curve
                yield curve

    def _add_shapley(self, result: PatientResult, values: NDArray[np.float64], risk: float) -> None:
        values[-1] = risk  # the same up to how a batch rounds
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
        feature = self._wishes.what_if.feature
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
