"""`medserve classify`: classifies image files and prints a table, JSON lines or a result file."""

import json
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path

from medserve_client.cli import terminal
from medserve_client.cli.classify.reason_maps import drawn, maps
from medserve_client.cli.classify.record import csv_columns, csv_row, record
from medserve_client.cli.exit_codes import ExitCode
from medserve_client.cli.images import pictures
from medserve_client.cli.images.find import find_images
from medserve_client.cli.images.outcomes import Outcome, outcomes
from medserve_client.cli.images.results import written_to
from medserve_client.client import Client
from medserve_client.reasons import ImageReasons
from medserve_client.results import ImageResult, ModelDescription

_CHUNK_FILES = 64


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
        UsageError: no images were found; the overlays of two files would have the same name, or cannot be written; the
            results cannot be written, or `output` has results of another model or command.
    """
    found = find_images(names)
    if overlays is not None:
        pictures.check_names(found.images)

    def send(contents: list[bytes]) -> Sequence[tuple[ImageResult, str]]:
        response = client.classify(contents, model.name, model.version, top_k, reasons, frame=frame)
        return [(result, response.request_id) for result in response.results]

    for_table: list[Outcome[ImageResult]] = []
    failed = False
    with ExitStack() as stack:
        files, write = found.images, for_table.append
        if as_json:
            write = partial(_print_json, model, frame)
        elif output is not None:
            columns = csv_columns(model.manifest.image_classification.labels)
            make = csv_row if output.suffix.lower() == ".csv" else record
            files, write = stack.enter_context(written_to(output, files, frame, model, columns, make))
        bar_is_alone = not (as_json and sys.stdout.isatty())
        advance = stack.enter_context(terminal.progress("Images", len(files), shown=bar_is_alone))
        for made in outcomes(files, found.unreadable, send, 1 if reasons else _CHUNK_FILES):
            for outcome in made:
                failed |= bool(outcome.error)
                if outcome.result is not None and overlays is not None:
                    _save_overlays(overlays, outcome.file.name, outcome.result)
                write(outcome)
            advance(len(made))
    _show(for_table, model)
    return ExitCode.SOME_FAILED if failed else ExitCode.OK


def _save_overlays(folder: Path, file: str, result: ImageResult) -> None:
    for kind, one in maps(result):
        pictures.save(folder, file, kind, one.overlay_png)


def _print_json(model: ModelDescription, frame: int, outcome: Outcome[ImageResult]) -> None:
    print(json.dumps(record(outcome, model, frame)), flush=True)  # noqa: T201 - unchanged, whatever the console width


def _show(done: list[Outcome[ImageResult]], model: ModelDescription) -> None:
    results = [(outcome.file.name, outcome.result) for outcome in done if outcome.result is not None]
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
