"""Reads a CSV file of patients and keeps the line number of each record; `docs/csv.md` has the rules.

`medserve-train` follows the same rules.
"""

import csv
import io
import re
from dataclasses import dataclass
from pathlib import Path

from medserve_client.cli.exit_codes import UsageError
from medserve_client.cli.terminal import read_file

_DELIMITERS = ",;\t"
# The line that declares the delimiter to Excel, quoted or not; Excel itself may have padded it with delimiters.
_SEP_LINE = re.compile(r'"?sep=(.)"?\1*(?:\r\n|\r|\n)', re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Row:
    """The record of one patient: the line where it starts, counted from 1, and its cells."""

    line: int
    cells: list[str]


@dataclass(frozen=True, slots=True)
class PatientFile:
    """Content of a CSV file: delimiter, column names and rows."""

    path: Path
    delimiter: str
    columns: list[str]
    rows: list[Row]


def read_patient_file(path: Path) -> PatientFile:
    """Reads a CSV file with a header line; "-" is standard input.

    The delimiter is the one declared in a first line `sep=;`, or else whichever of comma, semicolon and
    tab splits the header into the most columns. A byte order mark and empty lines are skipped.

    Raises:
        UsageError: the file cannot be read, is not UTF-8, is not well-formed CSV or has no rows.
    """
    text = _text(path)
    delimiter, start = _delimiter(text, path)
    reader = csv.reader(io.StringIO(text[start:], newline=""), delimiter=delimiter, strict=True)
    rows = []
    skipped = 1 if start else 0
    end = skipped
    try:
        for cells in reader:
            if cells:
                rows.append(Row(end + 1, cells))
            end = skipped + reader.line_num
    except csv.Error as error:
        raise UsageError(f"{path}:{end + 1}: not well-formed CSV: {error}") from error
    if len(rows) < 2:
        raise UsageError(f"{path}: expected a header line and at least one row below it")
    columns = [name.strip() for name in rows[0].cells]
    return PatientFile(path, delimiter, columns, rows[1:])


def _text(path: Path) -> str:
    try:
        text = read_file(str(path)).decode("utf-8-sig")
    except OSError as error:
        raise UsageError(f"{path}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise UsageError(f"{path}: byte {error.start} is not UTF-8 text; save the file as CSV in UTF-8") from error
    if "\0" in text:
        raise UsageError(f"{path}: holds NUL characters, so it is not a text file; save the file as CSV in UTF-8")
    return text


def _delimiter(text: str, path: Path) -> tuple[str, int]:
    """Returns the delimiter and the offset of the header in the text."""
    named = _SEP_LINE.match(text)
    if named is None:
        return max(_DELIMITERS, key=lambda one: len(_header(text, one))), 0
    if named[1] not in _DELIMITERS:
        raise UsageError(f"{path}:1: sep={named[1]} names the delimiter; expected a comma, a semicolon or a tab")
    return named[1], named.end()


def _header(text: str, delimiter: str) -> list[str]:
    """Returns the first non-empty record; empty if it is not well-formed with this delimiter."""
    try:
        return next(filter(None, csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)), [])
    except csv.Error:
        return []
