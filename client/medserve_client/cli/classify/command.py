"""`medserve classify`: classifies image files and prints a table, JSON lines or a result file."""

import json
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from medserve_client.cli import terminal
from medserve_client.cli.classify.image_files import Listing, find_images
from medserve_client.cli.classify.reason_maps import check_overlay_names, drawn, maps, save_overlays
from medserve_client.cli.classify.record import FileState, Outcome, csv_columns, csv_row, record, stale_lines
from medserve_client.cli.exit_codes import ExitCode, UsageError
from medserve_client.cli.resend import ItemSender
from medserve_client.cli.results_file import ResultsFile
from medserve_client.client import Client
from medserve_client.errors import InferenceError
from medserve_client.reasons import ImageReasons
from medserve_client.results import ImageResult, ModelDescription

# Keeps requests below 4 MiB, gRPC's default message limit; a larger file is sent alone.
_CHUNK_BYTES = 3 * 1024 * 1024
_CHUNK_FILES = 64
# Maximum size of a serialized protobuf message, less some room for the rest of the request.
_MAX_BYTES = 2**31 - 2**20
# Maximum number of skipped files named on standard error.
_NAMED = 10

_Answer = tuple[ImageResult, str]
"""A result and its request ID."""


@dataclass(frozen=True, slots=True)
class _ImageFile:
    """A file's content, or why it cannot be read."""

    file: FileState
    content: bytes = b""
    error: str = ""


def classify(
    client: Client,
    model: ModelDescription,
    names: Sequence[str],
    top_k: int,
    frame: int,
    reasons: ImageReasons | None,
    overlays: Path | None,
    output: Path | None,
    *,
    as_json: bool,
) -> ExitCode:
    """Classifies files and the images in folders; prints a table or JSON lines, or writes a result file.

    Files that cannot be read, that the server rejects or that make it fail are reported on standard error; all others
    are classified.

    With `as_json`, prints one line for each file, in order, either
    `{"file", "frame", "size", "mtime_ns", "model", "version", "model_sha256", "request_id", "sop_instance_uid" of a
    DICOM file, "decision": {"label", "operating_point", "positive_label", "threshold"},
    "labels": [{"label", "probability"}], "warnings": [{"kind", "message"}], "uncertainty", "novelty"}`, with
    `"class_activation"` and `"occlusion"`, `{"label", "values"}`, if requested, or the same up to `"model_sha256"`
    with `"error"`.

    Args:
        client: client of the server.
        model: model that classifies.
        names: paths of images and folders; "-" is standard input.
        top_k: number of labels in each result; 0 for all.
        frame: frame of DICOM files, from 0.
        reasons: explanations to compute for each result.
        overlays: folder for the maps rendered over their images.
        output: result file, .csv or .jsonl, to which each result is appended as it arrives. Files whose results it
            already contains are skipped.
        as_json: whether to print JSON lines.

    Raises:
        UsageError: there are no images; the overlays of two files would have the same name, or cannot be written; the
            results cannot be written, or `output` has results of another model or command.
    """
    found = find_images(names)
    _report_skipped(found)
    if not found.images:
        raise UsageError(f"there are no images in {', '.join(names)}")
    if overlays is not None:
        check_overlay_names(found.images)

    def send(contents: list[bytes]) -> Sequence[_Answer]:
        response = client.classify(contents, model.name, model.version, top_k, reasons, frame=frame)
        return [(result, response.request_id) for result in response.results]

    sender = ItemSender(send)
    for_table: list[Outcome] = []
    failed = False
    with ExitStack() as stack:
        files, write = found.images, for_table.append
        if as_json:
            write = partial(_print_json, model, frame)
        elif output is not None:
            files, write = stack.enter_context(_written_to(output, files, frame, model))
        bar_is_alone = not (as_json and sys.stdout.isatty())
        advance = stack.enter_context(terminal.progress("Images", len(files), shown=bar_is_alone))
        images = (_read(file, found.unreadable) for file in files)
        for chunk in _chunks(images, 1 if reasons else _CHUNK_FILES):
            for outcome in _outcomes(sender, chunk):
                failed |= bool(outcome.error)
                _report(outcome, overlays)
                write(outcome)
            advance(len(chunk))
    _show(for_table, model)
    return ExitCode.SOME_FAILED if failed else ExitCode.OK


def _report_skipped(found: Listing) -> None:
    if count := len(found.others):
        more = f" and {count - _NAMED} more" if count > _NAMED else ""
        terminal.print_error(f"skipped, not images by suffix or content: {', '.join(found.others[:_NAMED])}{more}")


def _report(outcome: Outcome, overlays: Path | None) -> None:
    if outcome.error:
        terminal.print_error(f"{outcome.file.name}: {outcome.error}")
    if outcome.result is not None and overlays is not None:
        save_overlays(overlays, outcome.file.name, outcome.result)


def _print_json(model: ModelDescription, frame: int, outcome: Outcome) -> None:
    print(json.dumps(record(outcome, model, frame)), flush=True)  # noqa: T201 - unchanged, whatever the console width


@contextmanager
def _written_to(
    output: Path, files: list[str], frame: int, model: ModelDescription
) -> Iterator[tuple[list[str], Callable[[Outcome], None]]]:
    """Yields the files whose results are not in `output` yet, and a function that appends a result to it."""
    held: set[str] = set()
    columns = csv_columns(model.manifest.image_classification.labels)
    make = csv_row if output.suffix.lower() == ".csv" else record
    with ResultsFile(output, columns, stale_lines(files, frame, model, held)) as results:
        if held:
            terminal.print_error(f"{output}: has the results of {len(held)} of {len(files)} files, which are skipped")
        yield [file for file in files if file not in held], lambda one: results.add(make(one, model, frame))


def _read(name: str, unreadable: Mapping[str, str]) -> _ImageFile:
    if name in unreadable:
        return _ImageFile(FileState(name), error=f"cannot be read: {unreadable[name]}")
    try:
        if name == "-":
            content = terminal.read_file(name)
            return _ImageFile(FileState(name, len(content)), content)
        found = Path(name).stat()
        state = FileState(name, found.st_size, found.st_mtime_ns)
        if found.st_size > _MAX_BYTES:
            return _ImageFile(state, error=f"has {found.st_size} bytes; the maximum is {_MAX_BYTES}")
        return _ImageFile(state, terminal.read_file(name))
    except OSError as error:
        return _ImageFile(FileState(name), error=f"cannot be read: {error.strerror}")


def _chunks(images: Iterable[_ImageFile], count: int) -> Iterator[list[_ImageFile]]:
    chunk: list[_ImageFile] = []
    size = 0
    for image in images:
        if chunk and (size + len(image.content) > _CHUNK_BYTES or len(chunk) == count):
            yield chunk
            chunk, size = [], 0
        chunk.append(image)
        size += len(image.content)
    if chunk:
        yield chunk


def _outcomes(sender: ItemSender[bytes, _Answer], chunk: list[_ImageFile]) -> Iterator[Outcome]:
    answers = iter(sender.outcomes([image.content for image in chunk if not image.error]))
    for image in chunk:
        answer = None if image.error else next(answers)
        if isinstance(answer, list):
            yield Outcome(image.file, error="; ".join(violation.description for violation in answer))
        elif isinstance(answer, InferenceError):
            yield Outcome(image.file, error=answer.message or answer.code.name)
        elif answer is None:
            yield Outcome(image.file, error=image.error)
        else:
            yield Outcome(image.file, *answer)


def _show(outcomes: list[Outcome], model: ModelDescription) -> None:
    results = [(outcome.file.name, outcome.result) for outcome in outcomes if outcome.result is not None]
    if not results:
        return
    title = f"{model.name}, version {model.version}"
    decision = results[0][1].decision  # the operating point is the same for all
    if decision.threshold is not None:
        title += f": {decision.positive_label} at {decision.threshold:.1%} or above ({decision.operating_point})"
    table = terminal.table(title, "File", "Decision", "Labels", "Notes")
    for file, result in results:
        labels = [f"{label.label} {label.probability:.1%}" for label in result.labels]
        if result.uncertainty is not None:
            labels[0] += f" ± {result.uncertainty:.1%}"
        notes = "; ".join(warning.message for warning in result.warnings)
        table.add_row(*map(terminal.cell, (file, result.decision.label, ", ".join(labels), notes)))
    console = terminal.output()
    console.print(table)
    for file, result in results:
        for kind, one in maps(result):
            console.print(drawn(file, kind, one))
