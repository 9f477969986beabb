"""Result files, written line by line, which a later run can resume."""

import csv
import io
import json
import os
import re
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import IO, Self

from medserve_client.cli import terminal
from medserve_client.cli.exit_codes import UsageError

FORMATS = (".csv", ".jsonl")
"""File name suffixes of the formats: CSV and JSON Lines."""

Cells = Mapping[str, object]

_FORMULA = re.compile(r"[=+\-@].", re.DOTALL)


@contextmanager
def written_whole(path: Path) -> Iterator[IO[bytes]]:
    """Opens a temporary file that atomically replaces `path` when the block succeeds, and is deleted otherwise.

    Raises:
        UsageError: the file cannot be written.
    """
    target = path.resolve()
    unfinished = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        with unfinished.open("xb") as file:
            try:
                yield file
                file.flush()
                if target.exists():
                    shutil.copymode(target, unfinished)
                unfinished.replace(target)
            except BaseException:
                unfinished.unlink()
                raise
    except BrokenPipeError:  # of standard output, in the block
        raise
    except OSError as error:
        raise UsageError(f"{path}: cannot be written: {error.strerror}") from error


def csv_line(cells: Sequence[object]) -> bytes:
    """Encodes one record of a CSV file."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow(cells)
    return text.getvalue().encode("utf-8", "backslashreplace")


def csv_text(text: str) -> str:
    """Returns text for a CSV cell: printable, and not a formula to a spreadsheet, by a leading apostrophe."""
    return terminal.printable(f"'{text}" if _FORMULA.match(text) and not _is_number(text) else text)


def csv_cell(value: object, float_format: str = ".6f") -> str:
    """Returns a value for a CSV cell; empty for None."""
    match value:
        case None:
            return ""
        case bool():
            return str(value).lower()
        case float():
            return format(value, float_format)
    return csv_text(str(value))


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


class ResultsFile:
    """Appends results to a file, one complete line each.

    Existing lines are kept, except those that `is_stale` selects and a truncated last line.

    Args:
        path: file name that ends in one of FORMATS.
        columns: column names; in JSON Lines, the first one is the first key of each line.
        is_stale: called with the cells of each existing line, by name; returns whether to drop the line, and raises a
            UsageError if it is not a result of this command.

    Raises:
        UsageError: the file cannot be written, or has other content.
    """

    def __init__(self, path: Path, columns: Sequence[str], is_stale: Callable[[Cells], bool]) -> None:
        self._path = path
        self._columns = list(columns)
        self._header = csv_line(columns) if path.suffix.lower() == ".csv" else b""
        try:
            if path.exists():
                self._drop_stale_lines(is_stale)
            self._stream = path.open("ab", buffering=0)
        except OSError as error:
            raise UsageError(f"{path}: cannot be written: {error.strerror}") from error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        is_empty = not self._stream.seek(0, os.SEEK_END)
        self._stream.close()
        if is_empty:
            self._path.unlink(missing_ok=True)

    def add(self, cells: Cells) -> None:
        """Appends one line; in a CSV, the cells are ordered by its columns.

        Raises:
            UsageError: the line cannot be written; no part of it is left in the file.
        """
        end = self._stream.seek(0, os.SEEK_END)
        line = self._line(cells) if end else self._header + self._line(cells)
        try:
            while line:
                line = line[self._stream.write(line) :]
        except BaseException as error:
            self._stream.truncate(end)
            if isinstance(error, OSError):
                raise UsageError(f"{self._path}: cannot be written: {error.strerror}") from error
            raise

    def _line(self, cells: Cells) -> bytes:
        if not self._header:
            return f"{json.dumps(cells)}\n".encode()
        return csv_line([cells[column] for column in self._columns])

    def _drop_stale_lines(self, is_stale: Callable[[Cells], bool]) -> None:
        """Rewrites the file if some of its lines are to be dropped."""
        with self._path.open("rb") as held:
            stale = {number for number, line in enumerate(held, 1) if self._is_dropped(line, number, is_stale)}
            if not stale:
                return
            held.seek(0)
            with written_whole(self._path) as file:
                file.writelines(line for number, line in enumerate(held, 1) if number not in stale)

    def _is_dropped(self, line: bytes, number: int, is_stale: Callable[[Cells], bool]) -> bool:
        try:
            if number == 1:
                beginning = self._header or f'{{"{self._columns[0]}": '.encode()
                if not beginning.startswith(line[: len(beginning)]):
                    raise UsageError("is not the first line of a result file of this command, or has other columns")
            if not line.endswith(b"\n"):
                return True  # truncated
            if number == 1 and self._header:
                return False
            return is_stale(self._cells(line))
        except UsageError as error:
            raise UsageError(f"{self._path}:{number}: {error}; choose another file") from error

    def _cells(self, line: bytes) -> Cells:
        try:
            if not self._header:
                cells = json.loads(line)
            else:
                cells = dict(zip(self._columns, next(csv.reader([line.decode()])), strict=True))
        except (ValueError, StopIteration, csv.Error):
            cells = None
        if not isinstance(cells, dict):
            raise UsageError("is not a result of this command")
        return cells
