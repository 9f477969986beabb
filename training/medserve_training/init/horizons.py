"""Guesses the unit of a follow-up time, and the horizons at which risks are reported."""

import math
from dataclasses import dataclass
from typing import Literal

from medserve_training.init.table import words
from medserve_training.recipes.recipe import Horizon

Unit = Literal["days", "months", "years"]

_DAYS: dict[Unit, float] = {"days": 1.0, "months": 30.4375, "years": 365.25}
_UNIT_WORDS: dict[Unit, frozenset[str]] = {
    "days": frozenset(["d", "day", "days"]),
    "months": frozenset(["mo", "month", "months"]),
    "years": frozenset(["y", "yr", "yrs", "year", "years"]),
}
# If the name contains no unit: longer follow-up than this is in days, or in months.
_LONG_IN_DAYS, _LONG_IN_MONTHS = 300.0, 30.0
# Unit, horizons and interval of the curve. The first row whose last horizon is within follow-up is used.
_PLANS: tuple[tuple[Unit, tuple[int, ...], float], ...] = (
    ("years", (2, 5, 10), 1.0),
    ("years", (1, 3, 5), 0.5),
    ("years", (1, 2, 3), 0.25),
    ("years", (1, 2), 0.25),
    ("months", (3, 6, 12), 1.0),
    ("months", (1, 3, 6), 0.5),
    ("months", (1, 2, 3), 0.25),
    ("days", (7, 14, 28), 3.5),
    ("days", (1, 3, 7), 0.5),
)
_INTERVALS = 10


@dataclass(frozen=True)
class HorizonPlan:
    """Horizons, and the length and number of intervals of the survival curve, in the data's unit of time."""

    horizons: tuple[Horizon, ...]
    interval: float
    intervals: int


def guess_unit(column: str, longest: float) -> Unit:
    """Guesses the unit of a time from the words of its column's name, or else from the length of follow-up.

    Args:
        column: The column's name.
        longest: 90th percentile of follow-up.
    """
    found = set(words(column))
    for unit, names in _UNIT_WORDS.items():
        if found & names:
            return unit
    if longest > _LONG_IN_DAYS:
        return "days"
    return "months" if longest > _LONG_IN_MONTHS else "years"


def plan_horizons(longest: float, unit: Unit) -> HorizonPlan:
    """Chooses horizons within follow-up.

    Args:
        longest: Upper limit of the last horizon.
        unit: Unit of `longest` and of the result.
    """
    for name, horizons, step in _PLANS:
        interval = step * _DAYS[name] / _DAYS[unit]
        # The recipe requires exact multiples of the interval.
        counts = [round(horizon / step) for horizon in horizons]
        if interval * counts[-1] <= longest:
            found = [
                Horizon(label=_label(horizon, name), time=interval * count)
                for horizon, count in zip(horizons, counts, strict=True)
            ]
            return HorizonPlan(tuple(found), interval, counts[-1])
    # Follow-up shorter than a week: one horizon at its end, rounded down to one digit.
    power = 10.0 ** math.floor(math.log10(longest))
    interval = math.floor(longest / power) * power / _INTERVALS
    end = interval * _INTERVALS
    return HorizonPlan((Horizon(label=f"{end:g} {unit}", time=end),), interval, _INTERVALS)


def _label(count: int, unit: Unit) -> str:
    return f"{count} {unit.removesuffix('s') if count == 1 else unit}"
