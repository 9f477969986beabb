"""Converts patients to rows of a model's input, validates each value against the manifest and collects warnings."""

import difflib
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from medserve_proto.v1.manifest_pb2 import Feature, PatientRiskTask
from medserve_server.errors import FieldViolation, InvalidInput, listing

MAX_VIOLATIONS = 100

Value = float | str | None


@dataclass(frozen=True, slots=True)
class PatientWarning:
    """A property of a patient's values that may make the result less reliable."""

    kind: str
    """A value of medserve.v1.PatientWarning.Kind, without the prefix KIND_."""
    feature: str
    message: str


class PatientReader:
    """Converts patients to rows of one model's input."""

    def __init__(self, task: PatientRiskTask, max_entries: int) -> None:
        self.max_entries = max_entries
        self.columns = {feature.name: _Column(position, feature) for position, feature in enumerate(task.features)}

    def read(
        self, patients: Sequence[Sequence[tuple[str, Value]]]
    ) -> tuple[NDArray[np.float32], list[list[PatientWarning]]]:
        """Reads patients, each a list of feature names and values, with None for a missing value.

        Returns:
            The rows, float32 [patients, features] with NaN for missing values, and each patient's warnings.

        Raises:
            InvalidInput: values are invalid; lists up to 100 violations over all patients.
        """
        rows = np.full((len(patients), len(self.columns)), np.nan, np.float32)
        warnings: list[list[PatientWarning]] = []
        violations: list[FieldViolation] = []
        for index, patient in enumerate(patients):
            warnings.append([])
            if len(patient) > self.max_entries:
                text = f"has {len(patient)} entries, at most {self.max_entries} are accepted"
                raise InvalidInput.of(f"patients[{index}].features", text, "features")
            self._read_patient(patient, rows[index], warnings[index], violations, f"patients[{index}].features")
            if len(violations) >= MAX_VIOLATIONS:
                break
        if violations:
            raise InvalidInput(violations[:MAX_VIOLATIONS])
        return rows, warnings

    def _read_patient(
        self,
        patient: Sequence[tuple[str, Value]],
        row: NDArray[np.float32],
        warnings: list[PatientWarning],
        violations: list[FieldViolation],
        path: str,
    ) -> None:
        """Fills one row and appends its warnings and violations."""
        refused: set[str] = set()
        seen: set[str] = set()
        for name, value in patient:
            try:
                if name not in self.columns:
                    raise ValueError(self.unknown(name))
                if name in seen:
                    raise ValueError("is given twice")
                seen.add(name)
                if value is not None:
                    column = self.columns[name]
                    number = row[column.position] = column.number(value)
                    if warning := column.training_warning(number):
                        warnings.append(warning)
            except ValueError as error:
                refused.add(name)
                violations.append(FieldViolation(f"{path}[{name[:64]}]", str(error)))
        for column in self.columns.values():
            if not math.isnan(row[column.position]) or column.name in refused:
                continue
            if column.required:
                violations.append(FieldViolation(f"{path}[{column.name}]", f"is missing; expected {column.expected}"))
            else:
                warnings.append(column.imputation_warning())

    def check(self, rows: NDArray[np.float32]) -> Iterator[str]:
        """Yields the values that `read` would refuse, for rows sent as a tensor, float32 [batch, features]."""
        if rows.ndim != 2 or rows.shape[1] != len(self.columns):
            return  # the tensor's shape is refused elsewhere
        for column in self.columns.values():
            values = rows[:, column.position]
            missing = np.isnan(values)
            bad = missing if column.required else np.zeros_like(missing)
            bad = bad | (~missing & ~((values >= column.valid_min) & (values <= column.valid_max)))
            if column.whole:
                bad |= ~missing & np.isfinite(values) & (values != np.round(values))
            if bad.any():
                row = int(np.argmax(bad))
                place = f"row {row}, column {column.position} ({column.name})"
                yield f"{place} is {values[row]:g}, expected {column.expected}"

    def unknown(self, name: str) -> str:
        """Returns the error text for a name that is not a feature of the model."""
        close = difflib.get_close_matches(name[:64], self.columns, n=1)
        hint = f" (did you mean {close[0]}?)" if close else ""
        return f"is not a feature of the model{hint}; its features are {listing(list(self.columns))}"


class _Column:
    """A feature of the manifest, prepared for validation."""

    def __init__(self, position: int, feature: Feature) -> None:
        self.position = position
        self.name = feature.name
        self.required = feature.required
        self.imputed_as = feature.imputed_as
        self.unit = f" {feature.unit}" if feature.unit else ""
        self.categories = {name: index for index, name in enumerate(feature.categorical.names)}
        if self.categories:
            self.valid_min, self.valid_max, self.whole = 0.0, float(len(self.categories) - 1), True
            self.training_min, self.training_max = self.valid_min, self.valid_max
            self.expected = f"one of {listing(list(self.categories))}"
        else:
            numeric = feature.numeric
            self.valid_min, self.valid_max, self.whole = numeric.valid_min, numeric.valid_max, numeric.integer
            self.training_min, self.training_max = numeric.training_min, numeric.training_max
            kind = "a whole number" if self.whole else "a number"
            self.expected = f"{kind} from {self.valid_min:g} to {self.valid_max:g}{self.unit}"

    def number(self, value: float | str) -> float:
        """Converts a value to the number in the input tensor.

        Raises:
            ValueError: the value is outside the valid range or not a category; the message states what was expected.
        """
        if isinstance(value, str):
            if value in self.categories:
                return float(self.categories[value])
        elif self._is_valid(value) and not self.categories:
            return value
        shown = repr(value[:64]) if isinstance(value, str) else f"{value:g}"
        raise ValueError(f"is {shown}, expected {self.expected}")

    def _is_valid(self, number: float) -> bool:
        return self.valid_min <= number <= self.valid_max and (float(number).is_integer() or not self.whole)

    def training_warning(self, number: float) -> PatientWarning | None:
        """Returns a warning if a value is outside the range of the training data, else None."""
        if self.training_min <= number <= self.training_max:
            return None
        return PatientWarning(
            "OUT_OF_TRAINING_RANGE",
            self.name,
            f"{self.name} {number:g}{self.unit} is outside the range of the training data, "
            f"{self.training_min:g} to {self.training_max:g}",
        )

    def imputation_warning(self) -> PatientWarning:
        """Returns the warning about a missing value."""
        names = list(self.categories)
        used = names[round(self.imputed_as)] if names else f"{self.imputed_as:g}{self.unit}"
        return PatientWarning("IMPUTED", self.name, f"{self.name} is missing; the model assumed {used}")
