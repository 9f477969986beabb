"""What the server tells once it serves: a table on a terminal, plain lines elsewhere, records in a log of JSON."""

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
    """A model as it is told of at the start; the names of the fields are those of its record in a log of JSON."""

    model: str
    version: str
    title: str
    """Of the manifest; empty where there is none."""
    provider: str
    runs: int
    """At once."""
    threads: int
    """Of each run on the CPU."""
    max_batch_rows: int
    """0: requests are never joined."""

    @property
    def cells(self) -> tuple[str, str, str, str, str]:
        """Returns name, version, what it does, what it runs on, and batches, as people read them."""
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
    """Tells what is served and where, in a form that fits the log's format and standard output."""
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
            "metrics": metrics_url,
            "workers": settings.workers,
        }
        log.info("serving", extra={"fields": fields})
        return
    if sys.stdout is None:  # closed
        return
    lines = [
        f"serves   by {settings.transport}",
        f"gRPC     {grpc_address}",
        f"REST     {rest_url}",
        f"metrics  {metrics_url}",
    ]
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
    except OSError as error:  # a disk that is full, a reader that is gone: no reason not to serve
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # takes what Python would write at the end
        log.warning("serving on port %d, which standard output does not take: %s", port, error.strerror)


def _table(models: Sequence[ServedModel]) -> str:
    table = Table(title_justify="left")
    for name in ("model", "version", "what it does", "runs on", "batches"):
        table.add_column(name, overflow="fold")  # a name that is cut can't be asked for
    for model in models:
        table.add_row(*map(Text, model.cells))
    console = Console()
    with console.capture() as text:  # rich's own writing ends the process where nobody reads
        console.print(table)
    return text.get()


def _line(model: ServedModel) -> str:
    name, version, title, runs_on, batches = model.cells
    return f"model    {name}/{version}: {title}; runs on {runs_on}; batches: {batches}"


def _escaped(text: str) -> str:
    """Returns a text of a model's author on one line, with nothing that a terminal takes for an order."""
    return "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in text)
