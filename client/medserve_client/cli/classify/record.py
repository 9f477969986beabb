"""Records of `medserve classify`: one file's result as JSON or CSV, and which ones a later run replaces."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from medserve_client.cli import terminal
from medserve_client.cli.classify.reason_maps import maps
from medserve_client.cli.exit_codes import UsageError
from medserve_client.cli.results_file import Cells
from medserve_client.results import ImageResult, ModelDescription


@dataclass(frozen=True, slots=True)
class FileState:
    """A file at the time it was read: size in bytes and modification time in nanoseconds, if known."""

    name: str
    size: int | None = None
    mtime_ns: int | None = None


@dataclass(frozen=True, slots=True)
class Outcome:
    """The outcome for a file: its result and request ID, or an error."""

    file: FileState
    result: ImageResult | None = None
    request_id: str = ""
    error: str = ""


def record(outcome: Outcome, model: ModelDescription, frame: int) -> dict[str, object]:
    """Returns the JSON document of a file, as specified by `medserve_client.cli.classify.command.classify`."""
    file, result = outcome.file, outcome.result
    cells: dict[str, object] = {
        "file": file.name,
        "frame": frame,
        "size": file.size,
        "mtime_ns": file.mtime_ns,
        "model": model.name,
        "version": model.version,
        "model_sha256": model.sha256,
    }
    if result is None:
        return cells | {"error": outcome.error}
    cells |= {"request_id": outcome.request_id}
    if result.sop_instance_uid:
        cells |= {"sop_instance_uid": result.sop_instance_uid}
    return (
        cells
        | {
            "decision": asdict(result.decision),
            "labels": [asdict(label) for label in result.labels],
            "warnings": [{"kind": one.kind.name.lower(), "message": one.message} for one in result.warnings],
            "uncertainty": result.uncertainty,
            "novelty": result.novelty,
        }
        | {kind: {"label": one.label, "values": one.values.tolist()} for kind, one in maps(result)}
    )


_FILE = ("file", "frame", "size", "mtime_ns", "model", "version", "model_sha256", "request_id", "sop_instance_uid")
_DECISION = ("label", "operating_point", "positive_label", "threshold")


def csv_columns(labels: Sequence[str]) -> list[str]:
    """Returns the CSV columns that `csv_row` fills, for a model with these labels."""
    decision = ["decision", *_DECISION[1:]]
    return [
        *_FILE,
        *decision,
        *(f"probability_{label}" for label in labels),
        "uncertainty",
        "novelty",
        "warnings",
        "error",
    ]


def csv_row(outcome: Outcome, model: ModelDescription, frame: int) -> dict[str, object]:
    """Returns the CSV row of a file, by column: numbers with six decimals, empty cells for labels beyond the top k."""
    whole = record(outcome, model, frame)
    cells = dict.fromkeys(csv_columns(model.manifest.image_classification.labels), "")
    cells |= {name: _cell(whole.get(name)) for name in (*_FILE, "uncertainty", "novelty", "error")}
    if outcome.result is not None:
        decision = asdict(outcome.result.decision)
        cells |= {"decision" if name == "label" else name: _cell(decision[name]) for name in _DECISION}
        cells |= {f"probability_{one.label}": _cell(one.probability) for one in outcome.result.labels}
        cells["warnings"] = _cell("; ".join(one.message for one in outcome.result.warnings))
    return dict(cells)


def _cell(value: object) -> str:
    if value is None:
        return ""
    return f"{value:.6f}" if isinstance(value, float) else terminal.printable(str(value))


def stale_lines(names: Sequence[str], frame: int, model: ModelDescription, held: set[str]) -> Callable[[Cells], bool]:
    """Returns a predicate for the lines of a result file that this run replaces; it adds files to skip to `held`.

    Lines about files or frames that are not part of this run are kept. A line about a file of this run is kept if the
    file's size and modification time are unchanged; errors are retried.
    """
    by_cell = {text: name for name in names for text in (name, terminal.printable(name))}

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
