"""Reads the cells of a CSV file as text, so that what they mean can be guessed."""

import csv
import io
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from medserve_training.errors import UserError

_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)
_OTHER_SEPARATORS = {";": "semicolons", "\t": "tabs", "|": "vertical bars"}


@dataclass(frozen=True)
class Table:
    """The columns of a CSV file by their names, each with the text of its cells; "" is a missing value."""

    columns: dict[str, list[str]]

    @property
    def rows(self) -> int:
        """Number of rows below the header."""
        return len(next(iter(self.columns.values())))


def read_cells(path: Path) -> Table:
    """Reads a CSV file: UTF-8, commas, a header line.

    Raises:
        UserError: The file cannot be read, or its header or rows are not those of one table.
    """
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: byte {error.start} is not UTF-8; save the file as CSV in UTF-8") from error
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    rows: list[list[str]] = []
    try:
        for cells in reader:
            if not cells:
                continue
            if rows and len(cells) != len(rows[0]):
                raise UserError(
                    f"{path}: line {reader.line_num} has {len(cells)} cells, but the header has {len(rows[0])}"
                )
            rows.append(cells)
            if len(rows) == 1:
                _check_header(cells, path)
    except csv.Error as error:
        raise UserError(f"{path}: line {reader.line_num} is not well-formed CSV: {error}") from error
    if len(rows) < 2:
        raise UserError(f"{path} has no rows; expected a header line and one line for each patient")
    return Table({name: [row[index] for row in rows[1:]] for index, name in enumerate(rows[0])})


def _check_header(header: list[str], path: Path) -> None:
    first = header[0].strip().lower()
    for separator, name in _OTHER_SEPARATORS.items():
        if first == f"sep={separator}" or (len(header) == 1 and separator in header[0]):
            raise UserError(
                f"{path} is separated by {name}; save it with commas between the cells and a decimal point in numbers"
            )
    names = [name.strip() for name in header]
    if "" in names:
        raise UserError(f"{path}: column {names.index('') + 1} has no name; name every column in the header line")
    for name in names:
        if names.count(name) > 1:
            raise UserError(f"{path}: {names.count(name)} columns are called {name!r}; rename or remove all but one")


def numbers(cells: list[str]) -> NDArray[np.float64] | None:
    """The cells as float64 [n], NaN where missing; None where all are missing or one is not a number."""
    present = [cell for cell in cells if cell]
    if not present or not all(_NUMBER.fullmatch(cell) for cell in present):
        return None
    return np.array([float(cell) if cell else np.nan for cell in cells])


def is_number(cell: str) -> bool:
    """Whether a cell is a number with a decimal point."""
    return _NUMBER.fullmatch(cell) is not None


def words(name: str) -> list[str]:
    """The words of a column's name or a cell, in lower case: "osMonths", "OS_MONTHS" and "os (months)" are the same."""
    split = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", " ", name)
    return re.findall(r"[a-z0-9]+", split.lower())
