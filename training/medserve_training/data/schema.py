"""Schemas of patient tables: the column, unit and range of each covariate."""

import math
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic.dataclasses import dataclass

from medserve_training.errors import UserError
from medserve_training.recipes.strict_toml import STRICT, Several, build, parse_toml, read_text

# Networks compute with 32-bit floats.
LARGEST = float(np.finfo(np.float32).max)


@dataclass(frozen=True, config=STRICT)
class Transform:
    """A transform of a number x in clinical encoding.

    "linear" is x, "below" is min(x, parameter), "square" is (x - parameter)², "log" is ln(x + parameter) and
    "exponential" is exp(parameter · x); all are standardized afterwards.
    """

    kind: Literal["linear", "below", "square", "log", "exponential"]
    parameter: float = 0.0

    def overflows(self, x: float) -> bool:
        """Returns whether the transform of x exceeds the range of a 32-bit float."""
        match self.kind:
            case "square":
                return abs(x - self.parameter) > math.sqrt(LARGEST)
            case "exponential":
                return self.parameter * x > math.log(LARGEST)
            case _:
                return False


@dataclass(frozen=True, config=STRICT)
class Number:
    """A numeric covariate; `minimum` and `maximum` are the limits of plausible values, in `unit`."""

    name: str
    column: str
    description: str
    unit: str
    minimum: float
    maximum: float
    integer: bool = False
    required: bool = False
    transforms: tuple[Transform, ...] = ()

    def __post_init__(self) -> None:
        """Rejects an empty range, and transforms that are undefined or overflow within it."""
        if not -LARGEST <= self.minimum < self.maximum <= LARGEST:
            raise ValueError(
                f"{self.name!r} has minimum {self.minimum:g} and maximum {self.maximum:g}; expected a minimum below "
                f"the maximum, and both within the range of 32-bit floats (up to {LARGEST:.2g})"
            )
        for transform in self.transforms:
            if transform.kind == "log" and self.minimum + transform.parameter <= 0:
                raise ValueError(
                    f"{self.name!r} may be {self.minimum:g}, where ln(x + {transform.parameter:g}) is not defined"
                )
            for end in (self.minimum, self.maximum):
                if transform.overflows(end):
                    raise ValueError(
                        f"{self.name!r} may be {end:g}, where the transform {transform.kind!r} with parameter "
                        f"{transform.parameter:g} is too large"
                    )


@dataclass(frozen=True, config=STRICT)
class Category:
    """A categorical covariate; `values` are the cells of the table, in the order of `categories`."""

    name: str
    column: str
    description: str
    categories: Several[str]
    values: Several[str | int]
    required: bool = False

    def __post_init__(self) -> None:
        """Checks that values and categories match, are not empty or padded with spaces, and are unique."""
        if len(self.values) != len(self.categories):
            raise ValueError(f"{self.name!r} has {len(self.categories)} categories but {len(self.values)} values")
        for what, names in (("categories", self.categories), ("values", self.values)):
            spelled = [str(name) for name in names]
            if wrong := [name for name in spelled if not name or name != name.strip() or spelled.count(name) > 1]:
                raise ValueError(
                    f"{self.name!r} has {wrong[0]!r} among its {what}; each has to be unique, not empty and without "
                    "surrounding spaces: an empty cell means missing, and spaces around a cell are ignored"
                )


@dataclass(frozen=True, config=STRICT)
class EventValue:
    """The outcome: the columns of time and event, and the values that indicate an event and censoring."""

    time_column: str
    time_unit: Literal["days", "months", "years"]
    event_column: str
    event_value: str | int | bool
    censored_value: str | int | bool
    description: str

    def __post_init__(self) -> None:
        """Rejects identical values, and identical columns."""
        if str(self.event_value) == str(self.censored_value):
            raise ValueError(f"event_value and censored_value are both {self.event_value!r}; expected two values")
        if self.time_column == self.event_column:
            raise ValueError(f"time_column and event_column are both {self.time_column!r}; expected two columns")


@dataclass(frozen=True, config=STRICT)
class Schema:
    """A patient table: the outcome, and the covariates in the order of the network's input.

    The table may also contain the columns `ignored_columns`, which are not used.
    """

    outcome: EventValue
    features: Several[Number | Category]
    ignored_columns: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Rejects duplicate names of covariates, and the outcome as a covariate."""
        names = [feature.name for feature in self.features]
        if twice := [name for name in names if names.count(name) > 1]:
            raise ValueError(f"two covariates are named {twice[0]!r}; give each a unique name")
        outcome = (self.outcome.time_column, self.outcome.event_column)
        if leaks := [feature.name for feature in self.features if feature.column in outcome]:
            raise ValueError(f"{leaks[0]!r} is read from a column of the outcome; remove the covariate")


def load_schema(path: Path) -> Schema:
    """Loads a schema.

    Raises:
        UserError: The file is missing or one of its keys is invalid.
    """
    if not path.is_file():
        raise UserError(f"the schema {path} is missing; it maps the columns of the table to covariates")
    return build(Schema, parse_toml(read_text(path), f"schema {path}"), f"schema {path}")
