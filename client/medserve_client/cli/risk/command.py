"""`medserve risk`: predicts the risk of the patients in a CSV file and adds it to their rows."""

import csv
import io
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TextIO

from rich.table import Table

from medserve_client.cli import terminal
from medserve_client.cli.exit_codes import ExitCode, UsageError
from medserve_client.cli.feature_columns import feature_columns, feature_value
from medserve_client.cli.patient_file import PatientFile, Row, read_patient_file
from medserve_client.cli.resend import ItemSender
from medserve_client.cli.results_file import written_whole
from medserve_client.cli.risk.reasons import contributions, curve
from medserve_client.client import Client
from medserve_client.errors import InferenceError
from medserve_client.messages import FeatureValue
from medserve_client.reasons import RiskReasons
from medserve_client.results import HorizonRisk, ModelDescription, PatientResult
from medserve_proto.v1.manifest_pb2 import Feature, PatientRiskTask

_CHUNK_ROWS = 256

_Answer = tuple[PatientResult, str]
"""A result and its request ID."""


@dataclass(frozen=True, slots=True)
class _Scored:
    """A row with its result or its errors."""

    row: Row
    result: PatientResult | None
    errors: list[str]
    request_id: str = ""


@dataclass(frozen=True, slots=True)
class _Parsed:
    """A row with its values or its errors."""

    row: Row
    values: dict[str, FeatureValue]
    errors: list[str]


def score(
    client: Client,
    model: ModelDescription,
    path: Path,
    output: Path | None,
    reasons: RiskReasons | None,
    *,
    as_json: bool,
) -> ExitCode:
    """Predicts the risk of every patient in a CSV file.

    Every row is written with its original columns, followed by the risk by each horizon, the
    uncertainty of an ensemble, Shapley values if requested, the risk group, the warnings, and the
    error of an invalid row; the other rows are scored regardless. Without an output file, a
    table is printed to a terminal, or CSV to a pipe.

    With `as_json`, or if the output file ends in .jsonl, writes one line for each row, either
    `{"line", "model", "version", "model_sha256", "request_id", "risks": [{"horizon", "time", "risk",
    "uncertainty"}], "survival": {"times", "probabilities"}, "risk_group", "warnings": [{"kind",
    "feature", "message"}], "novelty", "shapley": {"horizon", "base_risk", "contributions":
    [{"feature", "value"}]}, "what_if": {"horizon", "feature", "points": [{"value", "risk"}]}}`, or
    `{"line", "model", "version", "model_sha256", "errors"}`.

    Raises:
        UsageError: the file is not a table of patients for this model, the output cannot be
            written, or a what-if curve was requested in CSV output.
    """
    task = model.manifest.patient_risk
    if as_json and output is not None:
        raise UsageError("-o writes a file, but --json writes to standard output; use one of them")
    if output is not None and output.exists() and path.exists() and output.samefile(path):
        raise UsageError(f"-o {output}: is the input file; choose another file")
    as_json = as_json or (output is not None and output.suffix.lower() == ".jsonl")
    as_csv = not as_json and (output is not None or not sys.stdout.isatty())
    if as_csv and reasons is not None and reasons.what_if is not None:
        raise UsageError("a CSV cannot hold the curve of --what-if; use --json, or -o with a .jsonl file")
    file = read_patient_file(path)
    try:
        columns = feature_columns(file.columns, task.features, model.name)
    except UsageError as error:
        raise UsageError(f"{path}: {error}") from error
    new = _new_columns(task, reasons)
    if clash := [column for column in file.columns if column in new]:
        raise UsageError(f"{path}: column {clash[0]} would occur twice in the result; rename it")
    _remark(file, columns, [feature.name for feature in task.features], model.name)

    scored = list(_scored(client, model, file, columns, reasons))
    if not (as_json or as_csv):
        _show(file, columns, scored, model)
    else:
        write = partial(_write_json, model) if as_json else partial(_write_csv, file, new)
        if output is None:
            write(scored, sys.stdout)
        else:
            with written_whole(output) as binary:
                stream = io.TextIOWrapper(binary, encoding="utf-8", newline="")
                write(scored, stream)
                stream.detach()
    return ExitCode.SOME_FAILED if any(one.errors for one in scored) else ExitCode.OK


def _new_columns(task: PatientRiskTask, reasons: RiskReasons | None) -> list[str]:
    """Returns the columns appended to a CSV, which `_new_cells` fills."""
    horizons = [horizon.label.replace(" ", "_") for horizon in task.horizons]
    columns = [f"risk_{horizon}" for horizon in horizons]
    if task.members > 1:
        columns += [f"uncertainty_{horizon}" for horizon in horizons]
    if reasons is not None and reasons.shapley:
        columns += ["base_risk", *(f"contribution_{feature.name}" for feature in task.features)]
    return [*columns, "risk_group", "warnings", "error"]


def _remark(file: PatientFile, columns: dict[int, Feature], features: Sequence[str], model: str) -> None:
    """Reports the columns that are not features and the features without a column."""
    if carried := [column for index, column in enumerate(file.columns) if index not in columns]:
        terminal.print_error(f"{file.path}: copied, not features of {model}: {', '.join(carried)}")
    found = {feature.name for feature in columns.values()}
    if absent := [name for name in features if name not in found]:
        terminal.print_error(f"{file.path}: no column, so missing for all patients: {', '.join(absent)}")


def _scored(
    client: Client,
    model: ModelDescription,
    file: PatientFile,
    columns: dict[int, Feature],
    reasons: RiskReasons | None,
) -> Iterator[_Scored]:
    """Yields the outcome of every row, in order; shows a progress bar and reports errors on standard error."""

    def send(rows: list[_Parsed]) -> Sequence[_Answer]:
        response = client.predict_risk([row.values for row in rows], model.name, model.version, reasons)
        return [(result, response.request_id) for result in response.results]

    sender = ItemSender(send)
    with terminal.progress("Patients", len(file.rows)) as advance:
        size = 1 if reasons else _CHUNK_ROWS
        for start in range(0, len(file.rows), size):
            chunk = [_parse(row, file, columns) for row in file.rows[start : start + size]]
            for scored in _outcomes(sender, chunk):
                for error in scored.errors:
                    terminal.print_error(f"{file.path}:{scored.row.line}: {error}")
                yield scored
            advance(len(chunk))


def _parse(row: Row, file: PatientFile, columns: dict[int, Feature]) -> _Parsed:
    if len(row.cells) != len(file.columns):
        return _Parsed(row, {}, [f"{len(row.cells)} cells, but the header has {len(file.columns)}"])
    values: dict[str, FeatureValue] = {}
    errors = []
    for index, feature in columns.items():
        try:
            values[feature.name] = feature_value(row.cells[index], feature)
        except ValueError as error:
            errors.append(f"column {feature.name}: {error}")
    return _Parsed(row, values, errors)


def _outcomes(sender: ItemSender[_Parsed, _Answer], chunk: list[_Parsed]) -> Iterator[_Scored]:
    answers = iter(sender.outcomes([parsed for parsed in chunk if not parsed.errors]))
    for parsed in chunk:
        answer = None if parsed.errors else next(answers)
        if isinstance(answer, list):
            errors = [
                f"column {violation.feature}: {violation.description}" if violation.feature else violation.description
                for violation in answer
            ]
            yield _Scored(parsed.row, None, errors)
        elif isinstance(answer, InferenceError):
            yield _Scored(parsed.row, None, [answer.message or answer.code.name])
        elif answer is None:
            yield _Scored(parsed.row, None, parsed.errors)
        else:
            result, request_id = answer
            yield _Scored(parsed.row, result, [], request_id)


def _write_csv(file: PatientFile, new: list[str], scored: list[_Scored], stream: TextIO) -> None:
    writer = csv.writer(stream, delimiter=file.delimiter, lineterminator="\n")
    writer.writerow(file.columns + new)
    width = len(file.columns)
    for one in scored:
        # A row whose length differs from the header's: its error says so; the new columns stay aligned.
        cells = (one.row.cells + [""] * width)[:width]
        writer.writerow(cells + _new_cells(one, len(new)))


def _new_cells(one: _Scored, count: int) -> list[str]:
    if one.result is None:
        return [""] * (count - 1) + [terminal.printable("; ".join(one.errors))]
    numbers = [risk.risk for risk in one.result.risks]
    numbers += [risk.uncertainty for risk in one.result.risks if risk.uncertainty is not None]
    if shapley := one.result.shapley:
        numbers += [shapley.base_risk, *(entry.value for entry in shapley.contributions)]
    return [
        *(f"{number:.6f}" for number in numbers),
        terminal.printable(one.result.risk_group),
        terminal.printable(_warnings(one.result)),
        "",
    ]


def _write_json(model: ModelDescription, scored: list[_Scored], stream: TextIO) -> None:
    stream.writelines(f"{_json(one, model)}\n" for one in scored)


def _json(one: _Scored, model: ModelDescription) -> str:
    row: dict[str, object] = {
        "line": one.row.line,
        "model": model.name,
        "version": model.version,
        "model_sha256": model.sha256,
    }
    if one.result is None:
        return json.dumps(row | {"errors": one.errors})
    result = one.result
    survival = {"times": result.survival.times.tolist(), "probabilities": result.survival.probabilities.tolist()}
    warnings = [asdict(warning) | {"kind": warning.kind.name.lower()} for warning in result.warnings]
    reasons = {name: asdict(reason) for name in ("shapley", "what_if") if (reason := getattr(result, name)) is not None}
    risks = [asdict(risk) for risk in result.risks]
    row |= {"request_id": one.request_id, "risks": risks, "survival": survival, "risk_group": result.risk_group}
    return json.dumps(row | {"warnings": warnings, "novelty": result.novelty} | reasons)


def _warnings(result: PatientResult) -> str:
    return "; ".join(warning.message for warning in result.warnings)


def _show(file: PatientFile, columns: dict[int, Feature], scored: list[_Scored], model: ModelDescription) -> None:
    """Prints a table of the risks, with as many of the non-feature columns, which identify patients, as fit.

    Warnings are printed below the table, where a column would be too narrow.
    """
    carried = [index for index in range(len(file.columns)) if index not in columns]
    console = terminal.output()
    tables = (_table(file, carried[:count], scored, model) for count in range(len(carried), -1, -1))
    last = _table(file, [], scored, model)
    console.print(next((table for table in tables if terminal.fits(table, console)), last))
    for one in scored:
        if notes := "not scored: see above" if one.result is None else _warnings(one.result):
            console.print(terminal.cell(f"{_patient(one, carried)}: {notes}"))
    for one in scored:
        patient = _patient(one, carried)
        if one.result is not None and one.result.shapley is not None:
            values = {feature.name: one.row.cells[index] for index, feature in columns.items()}
            console.print(contributions(patient, values, one.result, one.result.shapley))
        if one.result is not None and one.result.what_if is not None:
            console.print(curve(patient, one.result.what_if))


def _table(file: PatientFile, carried: Sequence[int], scored: list[_Scored], model: ModelDescription) -> Table:
    """Returns the table with the given non-feature columns."""
    task = model.manifest.patient_risk
    horizons = [horizon.label for horizon in task.horizons]
    title = f"Risk of {task.event} ({model.name}, version {model.version})"
    table = terminal.table(title, "Line", *(file.columns[index] for index in carried), *horizons, "Group")
    for one in scored:
        row = [str(one.row.line), *(_carried(one, index) for index in carried)]
        if one.result is not None:
            row += [*map(_risk, one.result.risks), one.result.risk_group]
        table.add_row(*map(terminal.cell, row))
    return table


def _patient(one: _Scored, carried: Sequence[int]) -> str:
    return ", ".join([f"Line {one.row.line}", *(_carried(one, index) for index in carried[:1])])


def _carried(one: _Scored, index: int) -> str:
    return one.row.cells[index] if index < len(one.row.cells) else ""


def _risk(one: HorizonRisk) -> str:
    return f"{one.risk:.1%}" if one.uncertainty is None else f"{one.risk:.1%} ± {one.uncertainty:.1%}"
