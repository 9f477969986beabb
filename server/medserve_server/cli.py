"""The command `medserve-server`."""

import argparse
import asyncio
import itertools
import logging
import os
import signal
import sys
from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from medserve_server.auth import INFER, METADATA, SCOPES, new_token
from medserve_server.config import Settings, SettingsError
from medserve_server.errors import ModelLoadError
from medserve_server.exposure import check_exposure
from medserve_server.process_setup import set_up_process
from medserve_server.supervise import ThreadStartError
from medserve_server.transport.choice import choose_transport
from medserve_server.workers import Row, Supervisor

log = logging.getLogger(__name__)


def main() -> None:
    """Reads the settings and serves; ends with status 1 and a line that says why where it can't."""
    if sys.argv[1:2] == ["token"]:
        _make_token(sys.argv[2:])
        return
    _hold_standard_streams()
    settings = Settings.read(sys.argv[1:])
    set_up_process(settings)
    try:
        settings = choose_transport(settings)
        check_exposure(settings)
        if settings.workers > 1 or settings.transport == "envoy":
            asyncio.run(Supervisor(settings, _print_start).run())
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
    """Serves in this process."""
    # Not at the top: the supervisor needs neither gRPC nor ONNX Runtime.
    from medserve_server.lifecycle import Server  # noqa: PLC0415
    from medserve_server.served import served_models  # noqa: PLC0415

    server = Server(settings)
    signals = itertools.count()

    def stop() -> None:
        if next(signals):
            log.warning("asked to stop a second time: calls that are being answered are dropped")
            raise SystemExit(1)
        server.stop()

    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop)
    await server.run(
        lambda server: _print_start(
            settings.model_copy(update={"http_port": server.http_port}),
            served_models(server),
            server.port,
            server.metrics_port,
        )
    )


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
            console.print(f"transport {settings.transport}", highlight=False)
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
