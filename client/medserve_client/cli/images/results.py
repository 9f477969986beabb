"""Result files of the subcommands that send image files, and which files a later run skips."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from medserve_client.cli import terminal
from medserve_client.cli.exit_codes import UsageError
from medserve_client.cli.images.outcomes import Outcome
from medserve_client.cli.results_file import Cells, ResultsFile, csv_text
from medserve_client.results import ModelDescription

FILE_COLUMNS = (
    "file",
    "frame",
    "size",
    "mtime_ns",
    "model",
    "version",
    "model_sha256",
    "request_id",
    "sop_instance_uid",
)
"""CSV columns of the keys that `file_cells` and the results have."""

_Result = TypeVar("_Result")


def file_cells(outcome: Outcome[_Result], model: ModelDescription, frame: int) -> dict[str, object]:
    """Returns the part of a record that all tasks share: the file, the model, and the error or request ID."""
    cells: dict[str, object] = {
        "file": outcome.file.name,
        "frame": frame,
        "size": outcome.file.size,
        "mtime_ns": outcome.file.mtime_ns,
        "model": model.name,
        "version": model.version,
        "model_sha256": model.sha256,
    }
    return cells | ({"error": outcome.error} if outcome.result is None else {"request_id": outcome.request_id})


@contextmanager
def written_to(
    output: Path,
    files: list[str],
    frame: int,
    model: ModelDescription,
    columns: Sequence[str],
    make: Callable[[Outcome[_Result], ModelDescription, int], Cells],
) -> Iterator[tuple[list[str], Callable[[Outcome[_Result]], None]]]:
    """Yields the files whose results are not in `output` yet, and a function that appends a result to it.

    Args:
        output: result file, .csv or .jsonl.
        files: files of this run.
        frame: frame of DICOM files, from 0.
        model: model of this run.
        columns: column names, as for ResultsFile.
        make: returns the record of an outcome.

    Raises:
        UsageError: the file cannot be written, or has results of another model or command.
    """
    held: set[str] = set()
    with ResultsFile(output, columns, _stale_lines(files, frame, model, held)) as results:
        if held:
            terminal.print_error(f"{output}: has the results of {len(held)} of {len(files)} files, which are skipped")
        yield [file for file in files if file not in held], lambda one: results.add(make(one, model, frame))


def _stale_lines(names: Sequence[str], frame: int, model: ModelDescription, held: set[str]) -> Callable[[Cells], bool]:
    """Returns a predicate for the lines of a result file that this run replaces; it adds files to skip to `held`.

    Lines about files or frames that are not part of this run are kept. A line about a file of this run is kept if the
    file's size and modification time are unchanged; errors are retried.
    """
    by_cell = {text: name for name in names for text in (name, csv_text(name))}

    def is_stale(cells: Cells) -> bool:
        if not {"file", "frame", "size", "mtime_ns", "model", "version", "model_sha256"} <= cells.keys():
            raise UsageError("is not a result of this command")
        if cells["model_sha256"] != model.sha256:
            raise UsageError(
                f"is a result of {cells['model']}, version {cells['version']}, SHA-256 {cells['model_sha256']}, and "
                f"this run uses {model.name}, version {model.version}, SHA-256 {model.sha256}"
            )
        name = by_cell.get(str(cells["file"]))
        if name is None or str(cells["frame"]) != str(frame):
            return False
        if cells.get("error") or not _is_unchanged(cells, name):
            return True
        held.add(name)
        return False

    return is_stale


def _is_unchanged(cells: Cells, name: str) -> bool:
    try:
        state = Path(name).stat()
    except OSError:  # reported when the file is read
        return False
    return (str(cells["size"]), str(cells["mtime_ns"])) == (str(state.st_size), str(state.st_mtime_ns))
