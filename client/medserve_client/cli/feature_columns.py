"""Matches the columns of a file to a model's features and parses their cells."""

import difflib
import math
import re
from collections.abc import Sequence

from medserve_client.cli.exit_codes import UsageError
from medserve_client.messages import FeatureValue
from medserve_proto.v1.manifest_pb2 import Feature

# Minimum similarity (difflib's ratio) for a column name to count as a misspelled feature name.
_SIMILARITY = 0.8
# Worded as in `medserve-train`.
_MISSING_HINT = "an empty cell means missing"
_REQUIRED_HINT = f"{_MISSING_HINT}, but a value is required here"
_NUMBER = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")
_GROUPED = re.compile(r"[+-]?[0-9]{1,3}(?:[ ,.'_\u2019\u00a0\u202f][0-9]{3})+(?:[.,][0-9]+)?")
_DECIMAL_COMMA = re.compile(r"[+-]?[0-9]*,[0-9]+(?:[eE][+-]?[0-9]+)?")
# Maximum length of a cell quoted in an error.
_SHOWN = 64


def feature_columns(columns: Sequence[str], features: Sequence[Feature], model: str) -> dict[int, Feature]:
    """Finds the column of each feature.

    Args:
        columns: column names of the file, in order.
        features: features of the model's manifest.
        model: model name, for messages.

    Returns:
        The feature of each column that matches one, by column index.

    Raises:
        UsageError: a feature has two columns, a column looks like a misspelled feature, a
            required feature has no column, or no column is a feature.
    """
    by_name = {feature.name: feature for feature in features}
    for name in by_name:
        if columns.count(name) > 1:
            raise UsageError(f"column {name} is there {columns.count(name)} times; keep one")
    absent = [name for name in by_name if name not in columns]
    for column in columns:
        if column not in by_name and (meant := _meant(column, absent)):
            raise UsageError(f"column {column} is not a feature of {model}; if it is {meant}, rename it")
    if len(absent) == len(by_name):
        raise UsageError(f"no column is a feature of {model}; its features are {', '.join(by_name)}")
    if needed := [name for name in absent if not by_name[name].HasField("imputed_as")]:
        raise UsageError(f"{model} needs a column for {', '.join(needed)}")
    return {index: by_name[column] for index, column in enumerate(columns) if column in by_name}


def _meant(column: str, absent: Sequence[str]) -> str | None:
    """Returns the feature that a column name is probably a misspelling of, or None."""
    plain = column.casefold().replace(" ", "_").replace("-", "_")
    by_plain = {name.casefold(): name for name in absent}
    matches = difflib.get_close_matches(plain, by_plain, n=1, cutoff=_SIMILARITY)
    return by_plain[matches[0]] if matches else None


def feature_value(cell: str, feature: Feature) -> FeatureValue:
    """Parses the cell of a feature; only an empty cell is a missing value, returned as None.

    Surrounding whitespace is ignored.

    Raises:
        ValueError: the cell is not a number or not a category of the feature.
    """
    text = cell.strip()
    if not text:
        return None
    hint = _REQUIRED_HINT if feature.required else _MISSING_HINT
    if not feature.HasField("categorical"):
        return _number(text, hint)
    if text not in feature.categorical.names:
        raise ValueError(f"{text[:_SHOWN]!r} is not one of {', '.join(feature.categorical.names)}; {hint}")
    return text


def _number(text: str, hint: str) -> float:
    """Parses a finite number with a decimal point.

    Raises:
        ValueError: the text is not such a number; the message says how to write it.
    """
    shown = repr(text[:_SHOWN])
    if _NUMBER.fullmatch(text):
        if math.isfinite(number := float(text)):
            return number
        raise ValueError(f"{shown} is too large a number")
    if _GROUPED.fullmatch(text):
        raise ValueError(f"{shown} is not a number; write it with a decimal point and without thousands separators")
    if _DECIMAL_COMMA.fullmatch(text):
        raise ValueError(f"{shown} is not a number; write it with a decimal point")
    raise ValueError(f"{shown} is not a number; {hint}")
