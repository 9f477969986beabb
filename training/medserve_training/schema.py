"""Schemas of tables of patients: which column is which covariate, in which unit and range."""

from pathlib import Path
from typing import Literal

from pydantic.dataclasses import dataclass

from medserve_training.errors import UserError
from medserve_training.strict_toml import STRICT, Several, build, parse_toml


@dataclass(frozen=True, config=STRICT)
class Transform:
    """One way in which a number x enters a network with clinical encoding.

    "linear" is x, "below" is min(x, parameter), "square" is (x - parameter)², "log" is ln(x + parameter) and
    "exponential" is exp(parameter · x); all are standardised afterwards.
    """

    kind: Literal["linear", "below", "square", "log", "exponential"]
    parameter: float = 0.0


@dataclass(frozen=True, config=STRICT)
class Number:
    """A numeric covariate: `minimum` and `maximum` are the limits of what can be true, in `unit`."""

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
        """Refuses a logarithm of what may be 0 or less."""
        for transform in self.transforms:
            if transform.kind == "log" and self.minimum + transform.parameter <= 0:
                raise ValueError(
                    f"{self.name!r} may be {self.minimum:g}, where ln(x + {transform.parameter:g}) is not defined"
                )


@dataclass(frozen=True, config=STRICT)
class Category:
    """A categorical covariate: `values` are the names as the table spells them, in the order of `categories`."""

    name: str
    column: str
    description: str
    categories: Several[str]
    values: Several[str | int]
    required: bool = False

    def __post_init__(self) -> None:
        """Holds values to categories."""
        if len(self.values) != len(self.categories):
            raise ValueError(f"{self.name!r} has {len(self.categories)} categories but {len(self.values)} values")


@dataclass(frozen=True, config=STRICT)
class EventValue:
    """The outcome: column of the time, column of the event and the value there that means it was seen."""

    time_column: str
    time_unit: Literal["days", "months", "years"]
    event_column: str
    event_value: str | int | bool
    censored_value: str | int | bool
    description: str


@dataclass(frozen=True, config=STRICT)
class Schema:
    """A table of patients: the outcome, and the covariates in the order of the network's input.

    The table may have the columns `ignored_columns` too; they are not used.
    """

    outcome: EventValue
    features: Several[Number | Category]
    ignored_columns: tuple[str, ...] = ()


def load_schema(path: Path) -> Schema:
    """Loads a schema.

    Raises:
        UserError: The file is missing or a key in it is wrong.
    """
    if not path.is_file():
        raise UserError(f"the schema {path} is missing; it says which column of the table is which covariate")
    return build(Schema, parse_toml(path.read_text(encoding="utf-8"), f"schema {path}"), f"schema {path}")
