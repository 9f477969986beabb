"""Finds the outcome of a table of patients: the columns of follow-up time and event, and what they hold."""

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
# Patterns of names, their words joined by "_". The first pattern holds names that mean nothing else.
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
# Words of a cell that say that the event was seen, or that it was not; the latter win ("no event").
_SEEN = frozenset(
    ["1", "t", "true", "y", "yes", "event", "dead", "died", "death", "deceased", "relapse", "relapsed", "recurred"]
)
_NOT_SEEN = frozenset(["0", "f", "false", "n", "no", "not", "none", "without", "alive", "living", "lived", "censored"])
# In a column of this name, a plain yes means that the event was not seen.
_INVERTED = re.compile(r"(?:\w+_)?(?:censored|alive|living)")
# A follow-up time in days, months or years.
_SHORTEST, _LONGEST = 1e-6, 1e6
_YES_OR_NO = frozenset(["0", "1", "t", "true", "f", "false", "y", "yes", "n", "no"])


@dataclass(frozen=True)
class Flags:
    """What the user says about the outcome; None where it is to be guessed."""

    time: str | None = None
    event: str | None = None
    event_value: str | None = None
    time_unit: Unit | None = None


@dataclass(frozen=True)
class Outcome:
    """The outcome: the schema's table, the reason for each key that was guessed, times [n], and number of events."""

    value: EventValue
    notes: dict[str, str]
    times: NDArray[np.float64]
    events: int

    @property
    def longest(self) -> float:
        """Follow-up that a tenth of the patients exceed; the last horizon can be measured on those."""
        return float(np.quantile(self.times, 0.9))


def find_outcome(columns: Columns, flags: Flags) -> Outcome:
    """Finds the outcome by the flags, and by the names and the content of the columns.

    Raises:
        UserError: No column or several may be the time or the event, or the cells of one are no outcome. The message
            says which flag decides.
    """
    for flag, name in (("--time", flags.time), ("--event", flags.event)):
        if name is not None and name not in columns:
            raise UserError(f"{flag} {name!r} is not a column of the file; its columns are {_listed(columns)}")
    event = flags.event or _find_event(columns, flags.time)
    time = flags.time or _find_time(columns, event)
    if time == event:
        raise UserError(
            f"--time and --event both name {time!r}; give the column of the follow-up time and that of the event"
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
    """Whether a column's name says that it holds an outcome, which nobody knows when a risk is asked for."""
    plain = "_".join(words(name))
    return any(pattern.fullmatch(plain) for pattern in (_TIME_NAMES[0], *_EVENT_NAMES))


def cell_values(cells: Iterable[str]) -> tuple[int, ...] | tuple[str, ...]:
    """The values of a column as a schema spells them: whole numbers where all of them are, else text."""
    found = tuple(cells)
    if all(re.fullmatch(r"0|-?[1-9]\d{0,14}", cell, re.ASCII) for cell in found):
        return tuple(int(cell) for cell in found)
    return found


def _notes(flags: Flags, events: int, rows: int) -> dict[str, str]:
    notes = {
        "time_column": "by its name and its content. Check that it counts from when a risk is asked for.",
        "time_unit": "by the column's name or by its numbers: days, months or years. If it is wrong, so are the "
        "horizons in the recipe: delete both files and give --time-unit.",
        "event_column": "by its name and its two values.",
        "event_value": f"the event was seen in {events} of {rows} rows. If it was in the others, swap the two values.",
        "description": "the name of the column. Set it to what the event is, e.g. relapse or death.",
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
    """The only column that fits the first pattern that any possible column fits.

    A name that means nothing else is taken even where the content is wrong: the error then says what is wrong.
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
                f"the time column {name!r} holds {cell!r} in row {row}, expected a number from {_SHORTEST:g} to "
                f"{_LONGEST:g}"
            )
    return np.array([float(cell) for cell in cells])


def _read_event(cells: list[str], name: str, event_value: str | None) -> tuple[str, str]:
    """The cell for an event, and that for a censored patient."""
    values = sorted(set(cells))
    if "" in values:
        raise UserError(
            f"the event column {name!r} is empty in row {cells.index('') + 1}; fill the cell or remove the row"
        )
    if len(values) != 2:
        some = _listed(values[:5]) + (", ..." if len(values) > 5 else "")
        raise UserError(f"the event column {name!r} holds {len(values)} different values ({some}), expected two")
    if event_value is not None:
        if event_value not in values:
            raise UserError(
                f"--event-value {event_value!r} is not in the column {name!r}, which holds {_listed(values)}"
            )
        return event_value, values[1 - values.index(event_value)]
    seen = [_says_seen(value) for value in values]
    if _INVERTED.fullmatch("_".join(words(name))) and all(_plain(value) in _YES_OR_NO for value in values):
        seen = [None if one is None else not one for one in seen]
    if {_plain(value) for value in values} == {"1", "2"}:  # as R's package survival has it
        seen = [_plain(value) == "2" for value in values]
    if sorted(seen, key=str) != [False, True]:
        raise UserError(
            f"the event column {name!r} holds {_listed(values)}; say which is the event with --event-value VALUE"
        )
    return values[seen.index(True)], values[seen.index(False)]


def _plain(cell: str) -> str:
    return re.sub(r"\.0*$", "", cell.strip().lower())


def _says_seen(cell: str) -> bool | None:
    found = set(words(_plain(cell)))
    if found & _NOT_SEEN:
        return False
    return True if found & _SEEN else None
