"""Reads CSV files of patients according to the rules of `docs/csv.md`, which also apply to `medserve risk`."""

import csv
import io
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from medserve_training.errors import UserError

MISSING_HINT = "an empty cell means missing"
REQUIRED_HINT = f"{MISSING_HINT}, but a value is required here"

_DELIMITERS = ",;\t"
# The line that declares the delimiter to Excel, quoted or not; Excel may have padded it with delimiters.
_SEP_LINE = re.compile(r'"?sep=(.)"?\1*(?:\r\n|\r|\n)', re.IGNORECASE)
_NUMBER = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")
_GROUPED = re.compile(r"[+-]?[0-9]{1,3}(?:[ ,.'_\u2019\u00a0\u202f][0-9]{3})+(?:[.,][0-9]+)?")
_DECIMAL_COMMA = re.compile(r"[+-]?[0-9]*,[0-9]+(?:[eE][+-]?[0-9]+)?")
# Maximum number of characters of a cell that an error message quotes.
_SHOWN = 64


class Row(NamedTuple):
    """One patient: the line on which the record starts, counted from 1, and its cells without surrounding spaces."""

    line: int
    cells: list[str]


@dataclass(frozen=True)
class CsvTable:
    """Column names and rows of text cells; every row has one cell per column, and an empty cell is a missing value."""

    source: str
    columns: list[str]
    rows: list[Row]

    def column(self, name: str) -> list[str]:
        """Returns the cells of one column.

        Raises:
            UserError: The column is missing or occurs more than once.
        """
        if (count := self.columns.count(name)) != 1:
            found = f"is there {count} times; keep one" if count else f"is missing; there are {', '.join(self.columns)}"
            raise UserError(f"{self.source}: column {name} {found}")
        index = self.columns.index(name)
        return [row.cells[index] for row in self.rows]

    def numbers(self, name: str) -> NDArray[np.float64]:
        """Returns a column with a number in every row, float64 [rows].

        Raises:
            UserError: The column is missing, or a cell is not a number.
        """
        values = []
        for row, cell in zip(self.rows, self.column(name), strict=True):
            try:
                values.append(parse_number(cell, required=True))
            except ValueError as error:
                raise UserError(f"{self.source}:{row.line}: column {name}: {error}") from error
        return np.array(values, dtype=np.float64)


def read_csv(path: Path) -> CsvTable:
    """Reads a CSV file with a header line.

    The delimiter is declared by a first line such as `sep=;`, or else is the one of comma, semicolon and tab that
    splits the header into the most columns. A byte order mark and empty lines are skipped.

    Raises:
        UserError: The file cannot be read, is not UTF-8 or not well-formed CSV, has no rows, or has a row with more or
            fewer cells than the header.
    """
    text = _text(path)
    delimiter, start = _delimiter(text, path)
    reader = csv.reader(io.StringIO(text[start:], newline=""), delimiter=delimiter, strict=True)
    skipped = 1 if start else 0
    rows: list[Row] = []
    line = skipped
    try:
        for cells in reader:
            if cells:
                rows.append(Row(line + 1, [cell.strip() for cell in cells]))
            line = skipped + reader.line_num
    except csv.Error as error:
        raise UserError(f"{path}:{line + 1}: not well-formed CSV: {error}") from error
    if len(rows) < 2:
        raise UserError(f"{path}: expected a header line and at least one row below it")
    header, *rows = rows
    for row in rows:
        if len(row.cells) != len(header.cells):
            raise UserError(f"{path}:{row.line}: {len(row.cells)} cells, but the header has {len(header.cells)}")
    return CsvTable(str(path), header.cells, rows)


def table_of(frame: pd.DataFrame, source: str) -> CsvTable:
    """Converts a data frame to a table of text."""
    missing = frame.isna().to_numpy()
    rows = [
        Row(number, ["" if empty else str(cell) for cell, empty in zip(cells, absent, strict=True)])
        for number, (cells, absent) in enumerate(zip(frame.itertuples(index=False), missing, strict=True), start=1)
    ]
    return CsvTable(source, [str(name) for name in frame.columns], rows)


def parse_number(text: str, *, required: bool) -> float:
    """Parses a number with a decimal point.

    Args:
        text: A cell without surrounding spaces.
        required: Whether a value is required; only affects the error message.

    Raises:
        ValueError: The text is not a finite number; the message says how to write one.
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
    raise ValueError(f"{shown} is not a number; {REQUIRED_HINT if required else MISSING_HINT}")


def parse_choice(text: str, choices: Sequence[str | int | bool], *, required: bool) -> int:
    """Returns the index of the value in a cell.

    Text has to match exactly; an integer matches any number equal to it, such as 1.0; a boolean matches true, True or
    TRUE, or false, False or FALSE.

    Args:
        text: A cell without surrounding spaces.
        choices: The permitted values.
        required: Whether a value is required; only affects the error message.

    Raises:
        ValueError: The cell contains none of them.
    """
    for index, choice in enumerate(choices):
        if _matches(text, choice):
            return index
    expected = ", ".join(spelled(choice) for choice in choices)
    raise ValueError(f"{text[:_SHOWN]!r} is not one of {expected}; {REQUIRED_HINT if required else MISSING_HINT}")


def spelled(choice: str | int | bool) -> str:
    """Returns a value as it is written in a cell."""
    return str(choice).lower() if isinstance(choice, bool) else str(choice)


def _matches(text: str, choice: str | int | bool) -> bool:
    match choice:
        case bool():
            return text in {str(choice), str(choice).lower(), str(choice).upper()}
        case int():
            return _NUMBER.fullmatch(text) is not None and float(text) == choice
        case str():
            return text == choice


def _text(path: Path) -> str:
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: byte {error.start} is not UTF-8 text; save the file as CSV in UTF-8") from error
    if "\0" in text:
        raise UserError(f"{path}: holds NUL characters, so it is not a text file; save the file as CSV in UTF-8")
    return text


def _delimiter(text: str, path: Path) -> tuple[str, int]:
    """Returns the delimiter, and the position in the text at which the header starts."""
    named = _SEP_LINE.match(text)
    if named is None:
        return max(_DELIMITERS, key=lambda one: len(_header(text, one))), 0
    if named[1] not in _DELIMITERS:
        raise UserError(f"{path}:1: sep={named[1]} names the delimiter; expected a comma, a semicolon or a tab")
    return named[1], named.end()


def _header(text: str, delimiter: str) -> list[str]:
    """Returns the first record that is not empty; an empty list if it cannot be parsed with this delimiter."""
    try:
        return next(filter(None, csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)), [])
    except csv.Error:
        return []
