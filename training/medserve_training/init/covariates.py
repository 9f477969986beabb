"""Guesses whether each column of a patient table is a number, a category, or not a covariate."""

import math
import re
from collections import Counter
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from medserve_training.data.schema import Category, Number
from medserve_training.init.outcome import cell_values, sounds_like_outcome
from medserve_training.init.table import is_number, numbers, words
from medserve_training.init.toml_text import toml

# A column with fewer rows that differ from the most common value may be constant in the training split.
_FEWEST_OTHERS = 5
_MOST_CATEGORIES = 20
# Minimum average number of rows for each category.
_ROWS_PER_CATEGORY = 3
# Larger numbers are codes rather than measurements; float64 cannot tell neighboring whole numbers apart there.
_LARGEST = 1e15
_ID_NAMES = re.compile(
    r"(?:\w+_)?(?:id|ids|uid|uuid|guid|pid|mrn|barcode)|(?:patient|subject|case|record|study|row|sample)"
    r"(?:_?(?:no|nr|num|number|name|code))?|index|nr|no|name|id_\w+"
)


@dataclass(frozen=True)
class Guess:
    """A covariate and, for each guessed key, the reason and what to check."""

    feature: Number | Category
    notes: dict[str, str]


def guess_covariate(name: str, cells: list[str]) -> Guess | str:
    """Guesses the covariate of a column.

    Args:
        name: Name of the column.
        cells: Its cells; "" is a missing value.

    Returns:
        The covariate, or the reason why the column is left out.
    """
    present = [cell for cell in cells if cell]
    counts = Counter(present)
    values = numbers(cells)
    if reason := _no_covariate(name, cells, counts, values):
        return reason
    if values is None:
        return _category(name, counts, len(present))
    known = values[~np.isnan(values)]
    if len(counts) == 2 and np.mod(known, 1).max() == 0:
        return _category(name, counts, len(present))
    return _number(name, known)


def _no_covariate(name: str, cells: list[str], counts: Counter[str], values: NDArray[np.float64] | None) -> str | None:
    """Returns why a column is left out regardless of its type; None if it is not."""
    plain = "_".join(words(name))
    many = len(counts) > min(_MOST_CATEGORIES, len(cells) / 2)
    if not (name and counts):
        return "is empty in every row" if name else "has no name"
    if (many and _ID_NAMES.fullmatch(plain)) or _counts_rows(values):
        return "identifies the row; if a patient has several rows, keep one of them, or the figures are too optimistic"
    if sounds_like_outcome(name):
        return "sounds like an outcome, which is unknown at the time of prediction"
    return _extreme(counts, values)


def _extreme(counts: Counter[str], values: NDArray[np.float64] | None) -> str | None:
    """Returns why a column is left out for its very large numbers, or its near-constant values; None if it is not."""
    if values is not None and (largest := np.nanmax(np.abs(values))) > _LARGEST:
        return f"contains numbers as large as {largest:g}, which are codes rather than measurements"
    # In the precision of the model's input.
    same = counts if values is None else Counter(values[~np.isnan(values)].astype(np.float32).tolist())
    if (others := same.total() - max(same.values())) < _FEWEST_OTHERS:
        most = max(counts, key=lambda cell: counts[cell])
        return f"is {toml(_short(most))} in all but {others} of {same.total()} rows"
    return None


def _counts_rows(values: NDArray[np.float64] | None) -> bool:
    return values is not None and len(values) > 2 and values[0] in (0, 1) and bool((np.diff(values) == 1).all())


def _category(name: str, counts: Counter[str], present: int) -> Guess | str:
    found = sorted(counts, key=_natural)
    if len(found) > 2 and len(found) > min(_MOST_CATEGORIES, present // _ROWS_PER_CATEGORY):
        others = [cell for cell in counts if not is_number(cell)]
        if 0 < len(others) < len(found) / 2:
            return f"is a number in most rows, but contains {toml(_short(others[0]))}; correct or empty those cells"
        return f"is text with {len(found)} different values"
    feature = Category(name=name, column=name, description=name, categories=tuple(found), values=cell_values(found))
    notes = {
        "description": "the name of the column.",
        "categories": f"a category, because the column has {len(found)} different values. Put them in their natural "
        "order, from low to high, and `values` in the same order. `categories` may be any names, `values` are the "
        "contents of the cells.",
    }
    return Guess(feature, notes)


def _number(name: str, known: NDArray[np.float64]) -> Guess:
    low, high = float(known.min()), float(known.max())
    minimum, maximum = _widen(low, high)
    whole = bool((np.mod(known, 1) == 0).all())
    feature = Number(
        name=name,
        column=name,
        description=name,
        unit="",
        minimum=minimum,
        maximum=maximum,
        integer=whole,
    )
    notes = {
        "description": "the name of the column.",
        "unit": 'unknown. Set it, e.g. to "years" or "mg/dl"; leave it "" for counts and scores.',
        "minimum": f"the data ranges from {low:g} to {high:g}; these limits are 10 % wider on either side, rounded. "
        "Set them to the limits of plausible values: the server rejects values beyond them.",
        **({"integer": "all values are whole numbers. Set it to false if others can occur."} if whole else {}),
    }
    return Guess(feature, notes)


def _widen(low: float, high: float) -> tuple[float, float]:
    """Widens a range by 10 % on either side and rounds it outwards to one digit of its span; keeps it non-negative."""
    margin = (high - low) / 10
    step = 10.0 ** math.floor(math.log10(high - low))
    minimum, maximum = math.floor((low - margin) / step) * step, math.ceil((high + margin) / step) * step
    if low >= 0:
        minimum = max(minimum, 0)
    digits = max(0, -math.floor(math.log10(step)))
    minimum, maximum = round(minimum, digits), round(maximum, digits)
    return (minimum, maximum) if minimum <= low and high <= maximum else (low - margin, high + margin)


def _natural(cell: str) -> tuple[bool, float, str]:
    """Sort key: numbers by value, before text."""
    return (False, float(cell), cell) if is_number(cell) else (True, 0.0, cell)


def _short(cell: str) -> str:
    return cell if len(cell) <= 40 else f"{cell[:37]}..."
