"""Which columns of a file are features of a model, and what their cells say."""

import difflib
import math
import re
from collections.abc import Sequence

from medserve_client.cli.exit_codes import UsageError
from medserve_client.messages import FeatureValue
from medserve_proto.v1.manifest_pb2 import Feature

# How like a feature's name the name of a column must be to be taken for a slip (difflib's ratio).
_SLIP = 0.8
# `medserve-train` says the same.
_MISSING_HINT = "an empty cell means missing"
_REQUIRED_HINT = f"{_MISSING_HINT}, but a value is required here"
_NUMBER = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")
_GROUPED = re.compile(r"[+-]?[0-9]{1,3}(?:[ ,.'_\u2019\u00a0\u202f][0-9]{3})+(?:[.,][0-9]+)?")
_DECIMAL_COMMA = re.compile(r"[+-]?[0-9]*,[0-9]+(?:[eE][+-]?[0-9]+)?")
# Characters of a cell that an error shows.
_SHOWN = 64


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
    """What a cell says about a feature; an empty one, and only that, that it is missing.

    Spaces around a value do not count.

    Raises:
        ValueError: the cell should be a number or a category, and is not.
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
    """A finite number with a decimal point.

    Raises:
        ValueError: the text is not one; the message says how to write it.
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
