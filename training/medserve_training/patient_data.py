"""Readers of tables of patients: GBSG and CSV files with a schema."""

from importlib.resources import as_file, files
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sksurv.datasets import load_gbsg2

from medserve_training.errors import UserError
from medserve_training.recipe import Recipe
from medserve_training.schema import Category, EventValue, Number, Schema, load_schema
from medserve_training.splits import Patients, Splits, cut


def load_patients(recipe: Recipe) -> tuple[Splits[Patients], Schema]:
    """Loads and splits the patients that a recipe's data spec names.

    Raises:
        UserError: The data is missing or does not fit its schema.
    """
    patients, schema = load_cohort(recipe)
    return cut({"train": patients}, recipe.split, recipe.seed), schema


def load_cohort(recipe: Recipe) -> tuple[Patients, Schema]:
    """Loads the patients that a recipe's data spec names, all of them.

    Raises:
        UserError: The data is missing or does not fit its schema.
    """
    kind, _, place = recipe.data.spec.partition(":")
    if kind == "gbsg":
        with as_file(files("medserve_training") / "schemas" / "gbsg.toml") as path:
            schema = load_schema(path)
        table = gbsg_table()
    elif kind == "csv":
        schema = load_schema(Path(place).with_suffix(".toml"))
        table = _read_csv(Path(place))
    else:
        raise UserError(
            f"data spec {recipe.data.spec!r}: expected gbsg or csv:FILE for the task {recipe.task.kind!r}",
        )
    return read_table(table, schema, recipe.data.spec), schema


def gbsg_table() -> pd.DataFrame:
    """The patients of GBSG as scikit-survival spells them, with their outcome in the columns `time` and `cens`."""
    covariates, outcome = load_gbsg2()
    table: pd.DataFrame = covariates.assign(time=outcome["time"], cens=outcome["cens"])
    return table


def _read_csv(path: Path) -> pd.DataFrame:
    try:
        return pd.read_csv(path)
    except FileNotFoundError as error:
        raise UserError(f"{path} is missing") from error
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not a CSV file: {error}") from error


def read_table(table: pd.DataFrame, schema: Schema, source: str) -> Patients:
    """Turns a table into arrays, holding every value to the schema.

    Raises:
        UserError: A column is missing or unknown, or a value is not what the schema says.
    """
    outcome = schema.outcome
    known = [*(feature.column for feature in schema.features), outcome.time_column, outcome.event_column]
    missing = [name for name in known if name not in table]
    unknown = [name for name in table if name not in {*known, *schema.ignored_columns}]
    if missing or unknown:
        raise UserError(
            f"{source}: the schema and the table do not agree: columns missing in the table: {missing}; "
            f"columns unknown to the schema: {unknown}",
        )
    features = np.stack([_read_feature(table, feature, source) for feature in schema.features], axis=1)
    times, events = _read_outcome(table, outcome, source)
    return Patients(features.astype(np.float32), times, events)


def _read_feature(table: pd.DataFrame, feature: Number | Category, source: str) -> NDArray[np.float64]:
    column = table[feature.column]
    if isinstance(feature, Category):
        expected = f"one of {list(feature.values)}"
        values = column.astype(object).map({value: index for index, value in enumerate(feature.values)})
        numbers = values.astype(float)
    else:
        expected = f"a number from {feature.minimum:g} to {feature.maximum:g} {feature.unit}"
        numbers = pd.to_numeric(column, errors="coerce").astype(float)
        numbers = numbers.where(numbers.between(feature.minimum, feature.maximum))
    wrong = numbers.isna() & (column.notna() | feature.required)
    _refuse(wrong, column, f"{source}: {feature.column}", expected)
    return np.asarray(numbers, dtype=np.float64)


def _read_outcome(
    table: pd.DataFrame, outcome: EventValue, source: str
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    times = pd.to_numeric(table[outcome.time_column], errors="coerce").astype(float)
    _refuse(~(times > 0), table[outcome.time_column], f"{source}: {outcome.time_column}", "a time above 0")
    status = table[outcome.event_column]
    known = status.isin([outcome.event_value, outcome.censored_value])
    expected = f"{outcome.event_value!r} (event) or {outcome.censored_value!r} (censored)"
    _refuse(~known, status, f"{source}: {outcome.event_column}", expected)
    return np.asarray(times, dtype=np.float64), np.asarray(status == outcome.event_value, dtype=np.bool_)


def _refuse(wrong: "pd.Series[bool]", column: "pd.Series[float]", where: str, expected: str) -> None:
    if wrong.any():
        row = int(np.flatnonzero(wrong)[0])
        raise UserError(f"{where}: row {row + 1} holds {column.iloc[row]!r}, expected {expected}")
