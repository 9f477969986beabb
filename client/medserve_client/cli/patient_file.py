"""Reads a CSV file of patients, and keeps where in it each of them stands."""

import csv
import io
from dataclasses import dataclass
from pathlib import Path

from medserve_client.cli.exit_codes import UsageError

_DELIMITERS = ",;\t"


@dataclass(frozen=True, slots=True)
class Row:
    """One patient: the line of the file where its record starts, counted from 1, and its cells."""

    line: int
    cells: list[str]


@dataclass(frozen=True, slots=True)
class PatientFile:
    """A CSV file: its column names, its rows, and the delimiter it was written with."""

    path: Path
    delimiter: str
    columns: list[str]
    rows: list[Row]


def read_patient_file(path: Path) -> PatientFile:
    """Reads a CSV file with a header line.

    The delimiter is the one of comma, semicolon and tab that splits the header into the most
    columns. A byte order mark is skipped, and so are empty lines.

    Raises:
        UsageError: the file can't be read, is not UTF-8 or is not well-formed CSV, or has no rows.
    """
    text = _text(path)
    delimiter = max(_DELIMITERS, key=lambda one: len(_header(text, one)))
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    rows = []
    end = 0
    try:
        for cells in reader:
            if cells:
                rows.append(Row(end + 1, cells))
            end = reader.line_num
    except csv.Error as error:
        raise UsageError(f"{path}:{end + 1}: not well-formed CSV: {error}") from error
    if len(rows) < 2:
        raise UsageError(f"{path}: expected a header line and at least one row below it")
    columns = [name.strip() for name in rows[0].cells]
    return PatientFile(path, delimiter, columns, rows[1:])


def _text(path: Path) -> str:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            return file.read()
    except OSError as error:
        raise UsageError(f"{path}: can't be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise UsageError(f"{path}: byte {error.start} is not UTF-8 text; save the file as CSV in UTF-8") from error


def _header(text: str, delimiter: str) -> list[str]:
    """The first record that is not empty; none where this delimiter makes no sense of it."""
    try:
        return next(filter(None, csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)), [])
    except csv.Error:
        return []
