"""Finds the outcome of a patient table: the columns of follow-up time and event, and their values."""

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from medserve_training.data.schema import EventValue
from medserve_training.errors import UserError
from medserve_training.init.horizons import Unit, guess_unit
from medserve_training.init.table import Columns, is_number, numbers, words

_ENDPOINT = r"(?:os|pfs|dfs|rfs|efs|dss|surv|survival)"
_PER_UNIT = r"(?:_(?:in_)?(?:d|m|y|days?|mo|months?|yrs?|years?))?"
# Patterns of names, with their words joined by "_". The first pattern contains unambiguous names.
_TIME_NAMES = (
    re.compile(
        rf"(?:{_ENDPOINT}(?:_?time)?|tte|time|duration|(?:fu|followup|follow_up)(?:_?time)?|time_to_\w+?){_PER_UNIT}"
        "|days|months|years"
    ),
    re.compile(r"(?:\w+_)?(?:time|duration|survival|fu|followup|follow_up)(?:_\w+)?"),
)
_EVENT_NAMES = (
    re.compile(
        rf"(?:(?:{_ENDPOINT}|vital|death|event|fu)_)?(?:status|event|cens|censor|censored)"
        "|(?:is_)?(?:dead|died|deceased|alive|censored)|death|fustat"
    ),
    re.compile(
        r"(?:\w+_)?(?:event|dead|died|death|deceased|alive|relapsed?|recurred|recurrence|progressed|progression|cens"
        r"|censored|outcome|mortality)(?:_\w+)?"
    ),
)
# Words of a cell that mean that the event was observed, or that it was not; the latter take precedence ("no event").
_SEEN = frozenset(
    ["1", "t", "true", "y", "yes", "event", "dead", "died", "death", "deceased", "relapse", "relapsed", "recurred"]
)
_NOT_SEEN = frozenset(["0", "f", "false", "n", "no", "not", "none", "without", "alive", "living", "lived", "censored"])
# In a column with such a name, "yes" means that the event was not observed.
_INVERTED = re.compile(r"(?:\w+_)?(?:censored|alive|living)")
# Limits of a follow-up time, in days, months or years.
_SHORTEST, _LONGEST = 1e-6, 1e6
_YES_OR_NO = frozenset(["0", "1", "t", "true", "f", "false", "y", "yes", "n", "no"])


@dataclass(frozen=True)
class Flags:
    """The user's options about the outcome; None to guess."""

    time: str | None = None
    event: str | None = None
    event_value: str | None = None
    time_unit: Unit | None = None


@dataclass(frozen=True)
class Outcome:
    """The outcome: its table in the schema, a note for each guessed key, times [n], and the number of events."""

    value: EventValue
    notes: dict[str, str]
    times: NDArray[np.float64]
    events: int

    @property
    def longest(self) -> float:
        """90th percentile of follow-up; the 10 % of patients beyond it allow evaluation at the last horizon."""
        return float(np.quantile(self.times, 0.9))


def find_outcome(columns: Columns, flags: Flags) -> Outcome:
    """Finds the outcome from the flags, and from the names and contents of the columns.

    Raises:
        UserError: The time or the event matches no column or several, or the cells of a column are invalid. The
            message names the flag to use.
    """
    for flag, name in (("--time", flags.time), ("--event", flags.event)):
        if name is not None and name not in columns:
            raise UserError(f"{flag} {name!r} is not a column of the file; its columns are {_listed(columns)}")
    event = flags.event or _find_event(columns, flags.time)
    time = flags.time or _find_time(columns, event)
    if time == event:
        raise UserError(
            f"--time and --event both name {time!r}; give the column of the follow-up time and the one of the event"
        )
    times = _read_times(columns[time], time)
    cells = columns[event]
    seen, censored = _read_event(cells, event, flags.event_value)
    unit = flags.time_unit or guess_unit(time, float(np.quantile(times, 0.9)))
    spelled = cell_values([seen, censored])
    value = EventValue(
        time_column=time,
        time_unit=unit,
        event_column=event,
        event_value=spelled[0],
        censored_value=spelled[1],
        description=event.strip(),
    )
    return Outcome(value, _notes(flags, cells.count(seen), len(cells)), times, cells.count(seen))


def sounds_like_outcome(name: str) -> bool:
    """Returns whether a column's name suggests an outcome, which is unknown at the time of prediction."""
    plain = "_".join(words(name))
    return any(pattern.fullmatch(plain) for pattern in (_TIME_NAMES[0], *_EVENT_NAMES))


def cell_values(cells: Iterable[str]) -> tuple[int, ...] | tuple[str, ...]:
    """Returns the values of a column as in a schema: integers if all of them are, else text."""
    found = tuple(cells)
    if all(re.fullmatch(r"0|-?[1-9]\d{0,14}", cell, re.ASCII) for cell in found):
        return tuple(int(cell) for cell in found)
    return found


def _notes(flags: Flags, events: int, rows: int) -> dict[str, str]:
    notes = {
        "time_column": "from its name and its content. Check that it is counted from the time of prediction.",
        "time_unit": "from the column's name or its numbers: days, months or years. If it is wrong, so are the "
        "horizons in the recipe: delete both files and run init with --time-unit.",
        "event_column": "from its name and its two values.",
        "event_value": f"the event was observed in {events} of {rows} rows. If it was in the others, swap the two "
        "values.",
        "description": "the name of the column. Set it to the event, e.g. relapse or death.",
    }
    given = {
        "time_column": flags.time,
        "time_unit": flags.time_unit,
        "event_column": flags.event,
        "event_value": flags.event_value,
    }
    return {key: note for key, note in notes.items() if given.get(key) is None}


def _listed(names: Iterable[str]) -> str:
    return ", ".join(repr(name) for name in names)


def _find_time(columns: Columns, event: str) -> str:
    def possible(name: str) -> bool:
        values = numbers(columns[name])
        return name != event and values is not None and bool((values > 0).all()) and np.unique(values).size > 1

    what = "the follow-up time, a number above 0 in every row"
    return _only_one(columns, possible, _TIME_NAMES, f"{what}; say which with --time COLUMN")


def _find_event(columns: Columns, time: str | None) -> str:
    def possible(name: str) -> bool:
        cells = set(columns[name])
        return name != time and len(cells) == 2 and "" not in cells

    what = "the event, one of two values in every row"
    return _only_one(columns, possible, _EVENT_NAMES, f"{what}; say which with --event COLUMN")


def _only_one(columns: Columns, possible: Callable[[str], bool], patterns: Sequence[re.Pattern[str]], what: str) -> str:
    """Returns the only column that matches the first pattern matched by any possible column.

    An unambiguous name is accepted even if the content is invalid, so that the error names the invalid content.
    """
    plain = {name: "_".join(words(name)) for name in columns}
    candidates = [name for name in columns if possible(name)]
    for names, pattern in (*((candidates, pattern) for pattern in patterns), (list(columns), patterns[0])):
        found = [name for name in names if pattern.fullmatch(plain[name])]
        if len(found) == 1:
            return found[0]
        if found:
            raise UserError(f"{_listed(found)} may each be {what}")
    raise UserError(f"no column is certain to be {what} (the columns are {_listed(columns)})")


def _read_times(cells: list[str], name: str) -> NDArray[np.float64]:
    for row, cell in enumerate(cells, start=1):
        if not (is_number(cell) and _SHORTEST <= float(cell) <= _LONGEST):
            raise UserError(
                f"the time column {name!r} contains {cell!r} in row {row}, expected a number from {_SHORTEST:g} to "
                f"{_LONGEST:g}"
            )
    return np.array([float(cell) for cell in cells])


def _read_event(cells: list[str], name: str, event_value: str | None) -> tuple[str, str]:
    """Returns the values of an event and of censoring."""
    values = sorted(set(cells))
    if "" in values:
        raise UserError(
            f"the event column {name!r} is empty in row {cells.index('') + 1}; fill the cell or remove the row"
        )
    if len(values) != 2:
        some = _listed(values[:5]) + (", ..." if len(values) > 5 else "")
        raise UserError(f"the event column {name!r} contains {len(values)} different values ({some}), expected two")
    if event_value is not None:
        if event_value not in values:
            raise UserError(
                f"--event-value {event_value!r} is not in the column {name!r}, which contains {_listed(values)}"
            )
        return event_value, values[1 - values.index(event_value)]
    seen = [_means_event(value) for value in values]
    if _INVERTED.fullmatch("_".join(words(name))) and all(_plain(value) in _YES_OR_NO for value in values):
        seen = [None if one is None else not one for one in seen]
    if {_plain(value) for value in values} == {"1", "2"}:  # the coding of R's package survival
        seen = [_plain(value) == "2" for value in values]
    if sorted(seen, key=str) != [False, True]:
        raise UserError(
            f"the event column {name!r} contains {_listed(values)}; say which is the event with --event-value VALUE"
        )
    return values[seen.index(True)], values[seen.index(False)]


def _plain(cell: str) -> str:
    return re.sub(r"\.0*$", "", cell.strip().lower())


def _means_event(cell: str) -> bool | None:
    found = set(words(_plain(cell)))
    if found & _NOT_SEEN:
        return False
    return True if found & _SEEN else None
