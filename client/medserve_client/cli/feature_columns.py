"""Which columns of a file are features of a model, and what their cells say."""

import difflib
import math
from collections.abc import Sequence

from medserve_client.cli.exit_codes import UsageError
from medserve_client.messages import FeatureValue
from medserve_proto.v1.manifest_pb2 import Feature

# How like a feature's name the name of a column must be to be taken for a slip (difflib's ratio).
_SLIP = 0.8


def feature_columns(columns: Sequence[str], features: Sequence[Feature], model: str) -> dict[int, Feature]:
    """Finds the column of each feature.

    Args:
        columns: names in the file, in order.
        features: of the model's manifest.
        model: its name, for messages.

    Returns:
        The feature of each column that is one.

    Raises:
        UsageError: a feature stands in two columns, a column looks like a misspelt feature, a
            feature that is needed has no column, or none has one.
    """
    by_name = {feature.name: feature for feature in features}
    for name in by_name:
        if columns.count(name) > 1:
            raise UsageError(f"column {name} is there {columns.count(name)} times; keep one")
    absent = [name for name in by_name if name not in columns]
    for column in columns:
        if column not in by_name and (meant := _meant(column, absent)):
            raise UsageError(f"column {column} is not a feature of {model}; is it {meant}? Then rename it")
    if len(absent) == len(by_name):
        raise UsageError(f"no column is a feature of {model}; its features are {', '.join(by_name)}")
    if needed := [name for name in absent if not by_name[name].HasField("imputed_as")]:
        raise UsageError(f"{model} needs a column for {', '.join(needed)}")
    return {index: by_name[column] for index, column in enumerate(columns) if column in by_name}


def _meant(column: str, absent: Sequence[str]) -> str | None:
    """The feature that a column's name is a misspelling of, if it is one."""
    plain = column.casefold().replace(" ", "_").replace("-", "_")
    by_plain = {name.casefold(): name for name in absent}
    matches = difflib.get_close_matches(plain, by_plain, n=1, cutoff=_SLIP)
    return by_plain[matches[0]] if matches else None


def feature_value(cell: str, feature: Feature) -> FeatureValue:
    """What a cell says about a feature; an empty one that it is missing.

    Raises:
        ValueError: the cell should be a number, and is not.
    """
    text = cell.strip()
    if not text:
        return None
    if feature.HasField("categorical"):
        return text
    number = _number(text)
    if number is None:
        advice = "; write it with a decimal point" if _number(text.replace(",", ".")) is not None else ""
        raise ValueError(f"{text!r} is not a number{advice}")
    return number


def _number(text: str) -> float | None:
    """A finite number; Python's own digit groups, 1_000, are not one."""
    try:
        number = float(text.replace("_", "?"))
    except ValueError:
        return None
    return number if math.isfinite(number) else None
