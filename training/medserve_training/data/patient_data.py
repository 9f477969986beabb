"""Loaders of patient tables: GBSG and CSV files with a schema."""

import math
from collections.abc import Callable
from functools import partial
from importlib.resources import as_file, files
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sksurv.datasets import load_gbsg2

from medserve_training.data.csv_table import (
    REQUIRED_HINT,
    CsvTable,
    parse_choice,
    parse_number,
    read_csv,
    spelled,
    table_of,
)
from medserve_training.data.schema import LARGEST, Category, EventValue, Number, Schema, load_schema
from medserve_training.data.splits import OUTCOMES, Patients, Splits, cut
from medserve_training.errors import UserError
from medserve_training.recipes.recipe import Recipe


def load_patients(recipe: Recipe) -> tuple[Splits[Patients], Schema]:
    """Loads and splits the patients that a recipe's data spec names.

    Raises:
        UserError: The data is missing or does not match its schema, or there are too few patients to split them.
    """
    patients, schema = load_cohort(recipe)
    return cut({"train": patients}, recipe.split, recipe.seed, OUTCOMES), schema


def load_cohort(recipe: Recipe) -> tuple[Patients, Schema]:
    """Loads all patients that a recipe's data spec names.

    Raises:
        UserError: The data is missing or does not match its schema.
    """
    kind, _, place = recipe.data.spec.partition(":")
    if kind == "gbsg":
        with as_file(files("medserve_training.data") / "schemas" / "gbsg.toml") as path:
            schema = load_schema(path)
        table = table_of(gbsg_table(), "gbsg")
    elif kind == "csv" and Path(place).name:
        schema = load_schema(Path(place).with_suffix(".toml"))
        table = read_csv(Path(place))
    else:
        raise UserError(
            f"data spec {recipe.data.spec!r}: expected gbsg or csv:FILE for the task {recipe.task.kind!r}",
        )
    return read_table(table, schema), schema


def gbsg_table() -> pd.DataFrame:
    """Returns scikit-survival's table of GBSG patients, with the outcome in the columns `time` and `cens`."""
    covariates, outcome = load_gbsg2()
    table: pd.DataFrame = covariates.assign(time=outcome["time"], cens=outcome["cens"])
    return table


def read_table(table: CsvTable, schema: Schema) -> Patients:
    """Converts a table to arrays and validates every value against the schema.

    Raises:
        UserError: A column is missing, unknown or duplicated, or a value does not match the schema.
    """
    outcome = schema.outcome
    known = [*(feature.column for feature in schema.features), outcome.time_column, outcome.event_column]
    missing = [name for name in known if name not in table.columns]
    unknown = [name for name in table.columns if name not in {*known, *schema.ignored_columns}]
    if missing or unknown:
        raise UserError(
            f"{table.source}: the table does not match the schema: columns missing from the table: {missing}; "
            f"columns not in the schema: {unknown} (list unused columns in ignored_columns)",
        )
    features = [_read(table, feature.column, partial(_covariate, feature=feature)) for feature in schema.features]
    times = _read(table, outcome.time_column, partial(_time, unit=outcome.time_unit))
    events = _read(table, outcome.event_column, partial(_event, outcome=outcome))
    return Patients(np.stack(features, axis=1).astype(np.float32), times, events.astype(np.bool_))


def _read(table: CsvTable, column: str, value: Callable[[str], float]) -> NDArray[np.float64]:
    values = []
    for row, cell in zip(table.rows, table.column(column), strict=True):
        try:
            values.append(value(cell))
        except ValueError as error:
            raise UserError(f"{table.source}:{row.line}: column {column}: {error}") from error
    return np.array(values, dtype=np.float64)


def _covariate(cell: str, feature: Number | Category) -> float:
    """Returns the number of a cell, the index of its category, or NaN if it is empty."""
    if not cell:
        if feature.required:
            raise ValueError("is missing, but the schema requires it")
        return math.nan
    if isinstance(feature, Category):
        return parse_choice(cell, feature.values, required=feature.required)
    number = parse_number(cell, required=feature.required)
    if not feature.minimum <= number <= feature.maximum or (feature.integer and not number.is_integer()):
        kind = "a whole number" if feature.integer else "a number"
        raise ValueError(
            f"is {number:g}, expected {kind} from {feature.minimum:g} to {feature.maximum:g} {feature.unit}".rstrip()
        )
    return number


def _time(cell: str, unit: str) -> float:
    if not cell:
        raise ValueError(f"is missing, expected a time above 0 in {unit}")
    number = parse_number(cell, required=True)
    # Checked as a 32-bit float, too, since some losses compute in single precision.
    if not 0 < np.float32(min(number, LARGEST)) < LARGEST:
        raise ValueError(f"is {number:g}, expected a time above 0 in {unit}")
    return number


def _event(cell: str, outcome: EventValue) -> float:
    event, censored = outcome.event_value, outcome.censored_value
    try:
        return float(parse_choice(cell, (censored, event), required=True))
    except ValueError as error:
        shown = repr(cell) if cell else "missing"
        raise ValueError(
            f"is {shown}, expected {spelled(event)} (event) or {spelled(censored)} (censored); {REQUIRED_HINT}"
        ) from error
