"""`medserve classify`: picture files in, a table or JSON lines out."""

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from medserve_client.cli import terminal
from medserve_client.cli.exit_codes import ExitCode
from medserve_client.cli.reason_maps import check_overlay_names, drawn, maps, save_overlays
from medserve_client.cli.resend import ItemSender
from medserve_client.client import Client
from medserve_client.errors import InferenceError
from medserve_client.reasons import ImageReasons
from medserve_client.results import ImageResult, ModelDescription

# Together below 4 MiB, gRPC's default limit of a message; a larger file goes alone.
_CHUNK_BYTES = 3 * 1024 * 1024
_CHUNK_FILES = 64
# Of any serialized protobuf message, less some room for the rest of the request.
_MAX_BYTES = 2**31 - 2**20


@dataclass(frozen=True, slots=True)
class _Picture:
    """A file's content, or why it can't be read."""

    file: str
    content: bytes = b""
    error: str = ""


@dataclass(frozen=True, slots=True)
class _Outcome:
    """What became of a file: its result, or an error."""

    file: str
    result: ImageResult | None = None
    error: str = ""


def classify(
    client: Client,
    model: ModelDescription,
    files: Sequence[str],
    top_k: int,
    frame: int,
    reasons: ImageReasons | None,
    overlays: Path | None,
    *,
    as_json: bool,
) -> ExitCode:
    """Classifies files, "-" being standard input, and shows a table.

    Of DICOM files, `frame` is taken.

    A file that can't be read, is refused or makes the server fail is named on standard error; the others are done.

    With `as_json` one line for each file, in the order of the files, is either
    `{"file", "model", "version", "decision": {"label", "operating_point", "positive_label", "threshold"},
    "labels": [{"label", "probability"}], "warnings": [{"kind", "message"}], "uncertainty", "novelty"}`, with
    `"class_activation"` and `"occlusion"`, `{"label", "values"}`, where asked for, or `{"file", "error"}`.

    Args:
        client: of the server.
        model: that classifies.
        files: paths of pictures.
        top_k: how many labels each result lists; 0 for all.
        frame: of DICOM files, from 0.
        reasons: what to tell about the reasons of each result.
        overlays: the folder for the maps drawn over their pictures.
        as_json: whether to write lines of JSON.

    Raises:
        UsageError: two files' overlays would have one name, or can't be written.
    """
    if overlays is not None:
        check_overlay_names(files)

    def send(contents: list[bytes]) -> Sequence[ImageResult]:
        return client.classify(contents, model.name, model.version, top_k, reasons, frame=frame).results

    sender = ItemSender(send)
    outcomes = []
    for chunk in _chunks((_read(file) for file in files), 1 if reasons else _CHUNK_FILES):
        for outcome in _outcomes(sender, chunk):
            outcomes.append(outcome)
            if outcome.error:
                terminal.complain(f"{outcome.file}: {outcome.error}")
            if outcome.result is not None and overlays is not None:
                save_overlays(overlays, outcome.file, outcome.result)
            if as_json:
                print(_json(outcome, model), flush=True)  # noqa: T201 - as it is, whatever the width
    if not as_json:
        _show(outcomes, model)
    return ExitCode.SOME_FAILED if any(outcome.error for outcome in outcomes) else ExitCode.OK


def _read(file: str) -> _Picture:
    try:
        if file != "-" and (size := Path(file).stat().st_size) > _MAX_BYTES:
            return _Picture(file, error=f"has {size} bytes; a message holds at most {_MAX_BYTES}")
        return _Picture(file, terminal.read_file(file))
    except OSError as error:
        return _Picture(file, error=f"can't be read: {error.strerror}")


def _chunks(pictures: Iterable[_Picture], count: int) -> Iterator[list[_Picture]]:
    chunk: list[_Picture] = []
    size = 0
    for picture in pictures:
        if chunk and (size + len(picture.content) > _CHUNK_BYTES or len(chunk) == count):
            yield chunk
            chunk, size = [], 0
        chunk.append(picture)
        size += len(picture.content)
    if chunk:
        yield chunk


def _outcomes(sender: ItemSender[bytes, ImageResult], chunk: list[_Picture]) -> Iterator[_Outcome]:
    answers = iter(sender.outcomes([picture.content for picture in chunk if not picture.error]))
    for picture in chunk:
        answer = None if picture.error else next(answers)
        if isinstance(answer, list):
            yield _Outcome(picture.file, error="; ".join(violation.description for violation in answer))
        elif isinstance(answer, InferenceError):
            yield _Outcome(picture.file, error=answer.message or answer.code.name)
        else:
            yield _Outcome(picture.file, answer, picture.error)


def _json(outcome: _Outcome, model: ModelDescription) -> str:
    if outcome.result is None:
        return json.dumps({"file": outcome.file, "error": outcome.error})
    return json.dumps(
        {
            "file": outcome.file,
            "model": model.name,
            "version": model.version,
            "decision": asdict(outcome.result.decision),
            "labels": [asdict(label) for label in outcome.result.labels],
            "warnings": [{"kind": one.kind.name.lower(), "message": one.message} for one in outcome.result.warnings],
            "uncertainty": outcome.result.uncertainty,
            "novelty": outcome.result.novelty,
        }
        | {kind: {"label": one.label, "values": one.values.tolist()} for kind, one in maps(outcome.result)}
    )


def _show(outcomes: list[_Outcome], model: ModelDescription) -> None:
    results = [(outcome.file, outcome.result) for outcome in outcomes if outcome.result is not None]
    if not results:
        return
    title = f"{model.name}, version {model.version}"
    decision = results[0][1].decision  # the operating point is the same for all
    if decision.threshold is not None:
        title += f": {decision.positive_label} from {decision.threshold:.1%} on ({decision.operating_point})"
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
