"""Files of results: written line by line, and taken up again where an earlier run ended."""

import csv
import io
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import IO, Self

from medserve_client.cli.exit_codes import UsageError

FORMATS = (".csv", ".jsonl")
"""The suffixes of the formats: a CSV, and JSON Lines."""

Cells = Mapping[str, object]


@contextmanager
def written_whole(path: Path) -> Iterator[IO[bytes]]:
    """Gives a file to write, which takes the place of `path` when the block ends well, and is gone when it does not.

    Raises:
        UsageError: it can't be written.
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
    except OSError as error:
        raise UsageError(f"{path}: can't be written: {error.strerror}") from error


def csv_line(cells: Sequence[object]) -> bytes:
    """One record of a CSV file."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow(cells)
    return text.getvalue().encode("utf-8", "backslashreplace")


class ResultsFile:
    """Lines of results in a file; each is written whole, when it comes.

    What the file holds already stays, but for lines that `is_stale` tells to go, and a last line that was cut off.

    Args:
        path: ends in one of FORMATS.
        columns: of a CSV.
        is_stale: is given the cells of each line that the file holds, by their names; raises a UsageError where they
            don't belong here.

    Raises:
        UsageError: the file can't be written, or holds something else.
    """

    def __init__(self, path: Path, columns: Sequence[str], is_stale: Callable[[Cells], bool]) -> None:
        self._path = path
        self._columns = list(columns)
        self._header = csv_line(columns) if path.suffix.lower() == ".csv" else b""
        try:
            if path.exists():
                self._tidy_up(is_stale)
            self._stream = path.open("ab", buffering=0)
        except OSError as error:
            raise UsageError(f"{path}: can't be written: {error.strerror}") from error

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
        """Writes one line; those of a CSV by its columns.

        Raises:
            UsageError: it can't be written; nothing of it is left in the file.
        """
        end = self._stream.seek(0, os.SEEK_END)
        line = self._line(cells) if end else self._header + self._line(cells)
        try:
            while line:
                line = line[self._stream.write(line) :]
        except BaseException as error:
            self._stream.truncate(end)
            if isinstance(error, OSError):
                raise UsageError(f"{self._path}: can't be written: {error.strerror}") from error
            raise

    def _line(self, cells: Cells) -> bytes:
        if not self._header:
            return f"{json.dumps(cells)}\n".encode()
        return csv_line([cells[column] for column in self._columns])

    def _tidy_up(self, is_stale: Callable[[Cells], bool]) -> None:
        """Writes the file anew where some of it has to go."""
        with self._path.open("rb") as held:
            stale = {number for number, line in enumerate(held, 1) if self._has_to_go(line, number, is_stale)}
            if not stale:
                return
            held.seek(0)
            with written_whole(self._path) as file:
                file.writelines(line for number, line in enumerate(held, 1) if number not in stale)

    def _has_to_go(self, line: bytes, number: int, is_stale: Callable[[Cells], bool]) -> bool:
        try:
            if number == 1:
                beginning = self._header or f'{{"{self._columns[0]}": '.encode()
                if not beginning.startswith(line[: len(beginning)]):
                    raise UsageError("is not the first line of results of this command, or has other columns")
            if not line.endswith(b"\n"):
                return True  # cut off
            if number == 1 and self._header:
                return False
            return is_stale(self._cells(line))
        except UsageError as error:
            raise UsageError(f"{self._path}:{number}: {error}; name another file") from error

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
