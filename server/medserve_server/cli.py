"""The command `medserve-server`."""

import argparse
import asyncio
import logging
import os
import sys
import warnings
from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from medserve_server.auth import INFER, METADATA, SCOPES, new_token
from medserve_server.config import Settings, SettingsError
from medserve_server.errors import ModelLoadError
from medserve_server.exposure import check_exposure
from medserve_server.heap import share_heaps
from medserve_server.lifecycle import Server
from medserve_server.logs import set_up_logs
from medserve_server.supervise import ThreadStartError
from medserve_server.workers import Row, Supervisor

log = logging.getLogger(__name__)


def main() -> None:
    """Reads the settings and serves; ends with status 1 and a line that says why where it can't."""
    if sys.argv[1:2] == ["token"]:
        _make_token(sys.argv[2:])
        return
    _hold_standard_streams()
    settings = Settings.read(sys.argv[1:])
    _prepare(settings)
    try:
        check_exposure(settings)
        if settings.workers > 1:
            asyncio.run(Supervisor(settings, _prepare, _table_rows, _print_start).run())
        else:
            asyncio.run(_serve(settings))
    except (
        ModelLoadError,
        SettingsError,
        ModuleNotFoundError,
        OSError,
        ThreadStartError,
    ) as error:
        raise SystemExit(f"medserve-server: {error}") from None


def _make_token(arguments: Sequence[str]) -> None:
    """Prints a new token's line for --tokens, and the token itself, which is kept nowhere, on standard error."""
    parser = argparse.ArgumentParser(
        prog="medserve-server token",
        description="Makes a token. Its line for --tokens goes to standard output; the token goes to standard error, "
        "once: medserve-server token NAME >> tokens.txt 2> NAME.token",
        allow_abbrev=False,
    )
    parser.add_argument("name", metavar="NAME", help="of the client, in logs and errors")
    parser.add_argument(
        "--scopes",
        default=f"{INFER},{METADATA}",
        help=f"some of {','.join(SCOPES)}, separated by commas (default: %(default)s). priority: requests may ask for "
        "priority 1, which goes before those of other clients",
    )
    options = parser.parse_args(arguments)
    try:
        token, line = new_token(options.name, options.scopes)
    except ValueError as error:
        raise SystemExit(f"medserve-server token: {error}") from None
    sys.stdout.write(f"{line}\n")
    sys.stderr.write(f"{token}\n")


async def _serve(settings: Settings) -> None:
    await Server(settings).run(
        lambda server: _print_start(
            settings.model_copy(update={"http_port": server.http_port}),
            _table_rows(server),
            server.port,
            server.metrics_port,
        )
    )


def _prepare(settings: Settings) -> None:
    """Sets up what belongs to the whole process: its heaps, logging and warnings."""
    share_heaps()
    set_up_logs(settings)
    # They warn of sloppy metadata in pictures that they read all the same: anyone could fill the log with that, and
    # pydicom quotes it.
    warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.|pydicom\.")


def _table_rows(server: Server) -> list[Row]:
    """Says what is served, a row a model."""
    rows = []
    for model in server.models:
        session = model.session
        cores = f", {model.runs} x {session.threads} thread{'s' * (session.threads > 1)}"
        rows.append(
            (
                model.name,
                model.version,
                model.manifest.title if model.manifest else "(no manifest: Open Inference Protocol only)",
                f"{session.provider}{cores if session.provider == 'cpu' else ''}",
                f"up to {model.max_batch_rows}" if model.max_batch_rows else "no",
            )
        )
    return rows


def _print_start(settings: Settings, rows: Sequence[Row], port: int, metrics_port: int) -> None:
    """Says what is served and where."""
    table = Table("model", "version", "what it does", "runs on", "batches", title_justify="left")
    for row in rows:
        table.add_row(*row)
    if sys.stdout is None:  # closed
        return
    console = Console()
    try:
        with console.capture() as text:  # rich's own writing ends the process where nobody reads
            console.print(table)
            if settings.workers > 1:
                console.print(f"workers  {settings.workers}, each as above", highlight=False)
            console.print(f"gRPC     {settings.host}:{port}", highlight=False)
            if settings.serves_http_port:
                scheme = "http" if settings.tls_certificate is None else "https"
                console.print(f"REST     {scheme}://{settings.host}:{settings.http_port}", highlight=False)
            console.print(f"metrics  http://{settings.host}:{metrics_port}/metrics", highlight=False)
            console.print("Ctrl-C stops it after the last answer.", highlight=False)
        sys.stdout.write(text.get())
        sys.stdout.flush()
    except OSError as error:  # a disk that is full, a reader that is gone: no reason not to serve
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # takes what Python would write at the end
        log.warning("serving on port %d, which standard output does not take: %s", port, error.strerror)


def _hold_standard_streams() -> None:
    """Opens those that are closed onto nothing: else a connection gets their number, and what is written to them."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the least number that is free
