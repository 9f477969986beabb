"""`medserve loadtest`: measures throughput and latency under load, and where the time is spent."""

import argparse
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from medserve_client.cli import terminal
from medserve_client.cli.exit_codes import ExitCode, UsageError
from medserve_client.cli.feature_columns import feature_columns, feature_value
from medserve_client.cli.loadtest import report
from medserve_client.cli.loadtest.http import http_workload
from medserve_client.cli.loadtest.report import Run
from medserve_client.cli.models import choose_model
from medserve_client.cli.patient_file import read_patient_file
from medserve_client.client import Client
from medserve_client.images import ImageSource
from medserve_client.loadtest import LoadError, LoadPlan, LoadResult, run
from medserve_client.loadtest import Progress as LoadProgress
from medserve_client.loadtest.requests import (
    Workload,
    image_workload,
    patient_workload,
    segmentation_workload,
    synthetic_images,
    synthetic_patients,
)
from medserve_client.loadtest.server_metrics import compare, scrape
from medserve_client.messages import Patient
from medserve_client.results import ModelDescription, Task
from medserve_client.segmentation.results import MaskFormat

_CONCURRENCY = 16
_HTTP_CONNECTIONS = 64
_METRICS_PORT = 8002


def loadtest(client: Client, options: argparse.Namespace) -> ExitCode:
    """Generates the requested load and reports the results.

    --json writes one document: `{"target", "model", "version", "protocol", "tls", "mode", "batch", "connections",
    "processes", "seed", "runs": [...], "knee"}`; `report.document` describes a run.

    Raises:
        UsageError: an option or a file is invalid, or no load could be generated.
        InferenceError: the server rejects the requests.
    """
    if options.plot is not None:
        report.require_matplotlib()
    for path in filter(None, (options.json, options.plot)):
        if not path.parent.is_dir():
            raise UsageError(f"{path}: cannot be written: there is no folder {path.parent}")
    workload = http_workload(options) if options.http else _workload(client, _model(client, options), options)
    plans = _plans(workload, options)
    metrics = _metrics(options, workload.model)
    runs: list[Run] = []
    for number, plan in enumerate(plans, 1):
        runs.append(_run(plan, f"run {number} of {len(plans)}" if len(plans) > 1 else "run", metrics))
    knee = report.knee(runs, options.objective_ms / 1000) if options.sweep else None
    report.show(runs, workload, options, knee)
    if options.json is not None:
        report.write_json(options.json, runs, workload, options, knee)
    if options.plot is not None:
        report.write_plot(options.plot, runs, workload, knee)
    return ExitCode.SOME_FAILED if any(one.result.errors for one in runs) else ExitCode.OK


def _model(client: Client, options: argparse.Namespace) -> ModelDescription:
    """Returns the named model, or the only one for the kind of input given.

    Raises:
        UsageError: the named model takes another kind of input.
    """
    if options.patients is not None:
        return choose_model(client, Task.PATIENT_RISK, options.model, options.version)
    if not options.model:
        return choose_model(client, Task.IMAGE_CLASSIFICATION, None, options.version)
    model = client.describe(options.model, options.version)
    if options.images is not None and model.manifest.HasField("patient_risk"):
        raise UsageError(f"{model.name} is not a model for images")
    return model


def _workload(client: Client, model: ModelDescription, options: argparse.Namespace) -> Workload:
    """Builds the requests after one ordinary call, so that invalid input is reported before the load starts."""
    if model.manifest.HasField("patient_risk"):
        patients = _patients(options.patients, model) if options.patients else _made_up(model, options)
        count = min(len(patients), options.batch)
        answered = len(client.predict_risk(patients[:count], model.name, model.version).results)
        workload = patient_workload(model, patients, options.batch)
    else:
        images = _images(options.images) if options.images else _noise(model, options)
        count = min(len(images), options.batch)
        if model.manifest.HasField("image_classification"):
            answered = len(client.classify(images[:count], model.name, model.version).results)
            workload = image_workload(model, images, options.batch)
        else:
            answered = len(client.segment(images[:count], model.name, model.version, masks=MaskFormat.NONE).results)
            workload = segmentation_workload(model, images, options.batch)
    if answered != count:
        raise UsageError(f"the server answered {count} items with {answered} results; nothing can be measured")
    return workload


def _noise(model: ModelDescription, options: argparse.Namespace) -> list[ImageSource]:
    return synthetic_images(model.manifest, options.batch, options.seed)


def _made_up(model: ModelDescription, options: argparse.Namespace) -> list[Patient]:
    return synthetic_patients(model.manifest.patient_risk.features, options.batch, options.seed)


def _images(files: list[Path]) -> list[ImageSource]:
    try:
        return [file.read_bytes() for file in files]
    except OSError as error:
        raise UsageError(f"--images {error.filename}: cannot be read: {error.strerror}") from error


def _patients(path: Path, model: ModelDescription) -> list[Patient]:
    file = read_patient_file(path)
    try:
        columns = feature_columns(file.columns, model.manifest.patient_risk.features, model.name)
    except UsageError as error:
        raise UsageError(f"{path}: {error}") from error
    patients: list[Patient] = []
    for row in file.rows:
        if len(row.cells) != len(file.columns):
            raise UsageError(f"{path}:{row.line}: {len(row.cells)} cells, but the header has {len(file.columns)}")
        values = {}
        for index, feature in columns.items():
            try:
                values[feature.name] = feature_value(row.cells[index], feature)
            except ValueError as error:
                raise UsageError(f"{path}:{row.line}: column {feature.name}: {error}") from error
        patients.append(values)
    return patients


def _plans(workload: Workload, options: argparse.Namespace) -> list[LoadPlan]:
    rates = options.sweep or [options.rate or 0.0]
    streams = options.mode == "stream"
    concurrency = options.concurrency or _CONCURRENCY
    connections = (_HTTP_CONNECTIONS if rates[0] else concurrency) if options.http else options.processes
    try:
        return [
            LoadPlan(
                target=options.server,
                method=workload.stream_method if streams else workload.method,
                http_headers=workload.http_headers,
                payloads=workload.payloads,
                concurrency=0 if rate else concurrency,
                rate=rate,
                outcome=workload.outcome if streams else None,
                duration=options.duration,
                warmup=options.warmup,
                timeout=options.timeout,
                connections=options.connections or connections,
                processes=options.processes,
                seed=options.seed,
                tls=options.encryption,
                token=options.token,
            )
            for rate in rates
        ]
    except ValueError as error:
        raise UsageError(f"--{error}") from error


def _metrics(options: argparse.Namespace, model: str) -> Callable[[], dict[str, float]] | None:
    """Returns a function that scrapes the server's metrics; None, with a note, if they are unavailable."""
    host = urlsplit(f"//{options.server.removeprefix('dns:///')}").hostname
    url = options.metrics_url or f"http://{f'[{host}]' if host and ':' in host else host}:{_METRICS_PORT}/metrics"
    try:
        scrape(url, model)
    except (OSError, ValueError) as error:
        terminal.print_error(f"no metrics at {url} ({error}); set their address with --metrics-url")
        return None
    return lambda: scrape(url, model)


def _run(plan: LoadPlan, name: str, metrics: Callable[[], dict[str, float]] | None) -> Run:
    """Runs one load; the server's metrics are scraped after the warm-up and at the end."""
    before = metrics() if metrics else {}
    warm = False

    def on_progress(progress: LoadProgress) -> None:
        nonlocal before, warm
        show(progress)
        if metrics and not warm and progress.elapsed >= plan.warmup:
            before, warm = metrics(), True

    try:
        with _progress_bar(plan, name) as show:
            result: LoadResult = run(plan, on_progress)
        return Run(plan, result, compare(before, metrics()) if metrics else None)
    except LoadError as error:
        raise UsageError(str(error)) from error
    except OSError as error:
        raise UsageError(f"the server's metrics became unavailable: {error}") from error


@contextmanager
def _progress_bar(plan: LoadPlan, name: str) -> Iterator[Callable[[LoadProgress], None]]:
    load = f"{plan.rate:.4g} requests/s" if plan.rate else f"{plan.concurrency} in flight"
    look = (TextColumn(f"{name}, {load}"), BarColumn(), TimeRemainingColumn(), TextColumn("{task.description}"))
    with Progress(*look, console=Console(stderr=True), disable=not sys.stderr.isatty(), transient=True) as bars:
        bar = bars.add_task("", total=plan.warmup + plan.duration)

        def show(progress: LoadProgress) -> None:
            rate = progress.succeeded / progress.elapsed if progress.elapsed else 0.0
            bars.update(bar, completed=progress.elapsed, description=f"{rate:.0f}/s, {progress.failed} failed")

        yield show
