"""Startup message of the server: a table on a terminal, plain lines otherwise, log records with JSON logs."""

import os
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from rich.console import Console
from rich.table import Table
from rich.text import Text

from medserve_server.config import Settings, host_and_port
from medserve_server.telemetry.logs import startup as log


@dataclass(frozen=True)
class ServedModel:
    """A served model in the startup message; the field names are the keys of its JSON log record."""

    model: str
    version: str
    title: str
    """Title in the manifest; empty without a manifest."""
    provider: str
    runs: int
    """Maximum concurrent runs."""
    threads: int
    """Threads per run on the CPU."""
    max_batch_rows: int
    """Maximum rows per batch; 0 if requests are not batched."""

    @property
    def cells(self) -> tuple[str, str, str, str, str]:
        """Returns name, version, title, execution provider and batching as human-readable text."""
        threads = self.runs * self.threads
        cores = f", {threads} thread{'s' * (threads > 1)}"
        return (
            self.model,
            self.version,
            _escaped(self.title) or "(no manifest: Open Inference Protocol only)",
            f"{self.provider}{cores if self.provider == 'cpu' else ''}",
            f"up to {self.max_batch_rows}" if self.max_batch_rows else "no",
        )


def announce(settings: Settings, models: Sequence[ServedModel], port: int, metrics_port: int) -> None:
    """Prints or logs the served models and addresses, depending on the log format and on standard output."""
    grpc_address, metrics_address = (host_and_port(settings.host, number) for number in (port, metrics_port))
    metrics_url = f"http://{metrics_address}/metrics"
    http_port = settings.http_port if settings.serves_http_port else port
    rest_url = f"{'https' if settings.tls_certificate else 'http'}://{host_and_port(settings.host, http_port)}"
    if settings.log_format == "json":
        for model in models:
            log.info("model", extra={"fields": asdict(model)})
        fields = {
            "transport": settings.transport,
            "grpc": grpc_address,
            "rest": rest_url,
            "web": f"{rest_url}/" if settings.serves_web else None,
            "metrics": metrics_url,
            "workers": settings.workers,
        }
        log.info("serving", extra={"fields": fields})
        return
    if sys.stdout is None:  # standard output is closed
        return
    lines = [
        f"serves   by {settings.transport}",
        f"gRPC     {grpc_address}",
        f"REST     {rest_url}",
        f"metrics  {metrics_url}",
    ]
    if settings.serves_web:
        lines.insert(3, f"web      {rest_url}/")
    if settings.workers > 1:
        lines.insert(0, f"workers  {settings.workers}, each as above")
    try:
        if sys.stdout.isatty():
            text = _table(models) + "\n".join([*lines, "Ctrl-C stops it after the last answer.", ""])
        else:
            text = "\n".join([*map(_line, models), *lines, ""])
        encoding = sys.stdout.encoding
        sys.stdout.write(text.encode(encoding, "backslashreplace").decode(encoding))
        sys.stdout.flush()
    except OSError as error:  # a full disk or a closed pipe is no reason not to serve
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # absorbs what Python flushes at exit
        log.warning("serving on port %d, but cannot write to standard output: %s", port, error.strerror)


def _table(models: Sequence[ServedModel]) -> str:
    table = Table(title_justify="left")
    for name in ("model", "version", "what it does", "runs on", "batches"):
        table.add_column(name, overflow="fold")  # a truncated name could not be used in a request
    for model in models:
        table.add_row(*map(Text, model.cells))
    console = Console()
    with console.capture() as text:  # rich exits the process when it writes to a closed pipe
        console.print(table)
    return text.get()


def _line(model: ServedModel) -> str:
    name, version, title, runs_on, batches = model.cells
    return f"model    {name}/{version}: {title}; runs on {runs_on}; batches: {batches}"


def _escaped(text: str) -> str:
    """Returns the text, which comes from a model file, as one line without control characters."""
    return "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in text)
