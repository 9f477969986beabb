"""The command `medserve-server`."""

import argparse
import asyncio
import io
import itertools
import logging
import os
import signal
import sys
from collections.abc import Sequence
from contextlib import redirect_stderr

from medserve_server.config import Settings, SettingsError
from medserve_server.errors import ModelLoadError
from medserve_server.process.exposure import check_exposure
from medserve_server.process.flags import read_settings, warnings_about_environment
from medserve_server.process.process_setup import set_up_process
from medserve_server.process.startup import announce
from medserve_server.process.workers import Supervisor
from medserve_server.security.auth import INFER, METADATA, SCOPES, new_token
from medserve_server.supervise import ThreadStartError
from medserve_server.telemetry.logs import set_up_logs
from medserve_server.transport.choice import choose_transport

log = logging.getLogger(__name__)


def main() -> None:
    """Reads the settings and serves; ends with status 1 and a line that says why where it can't."""
    if sys.argv[1:2] == ["token"]:
        _make_token(sys.argv[2:])
        return
    _hold_standard_streams()
    settings = _read_settings(sys.argv[1:])
    set_up_process(settings)
    for line in warnings_about_environment():
        log.warning("%s", line)
    try:
        settings = choose_transport(settings)
        check_exposure(settings)
        if settings.workers > 1 or settings.transport == "envoy":
            asyncio.run(Supervisor(settings, announce).run())
        else:
            asyncio.run(_serve(settings))
    except (
        ModelLoadError,
        SettingsError,
        ModuleNotFoundError,
        OSError,
        ThreadStartError,
    ) as error:
        if settings.log_format == "json":
            log.critical("%s", error)
            raise SystemExit(1) from None
        raise SystemExit(f"medserve-server: {error}") from None


def _read_settings(arguments: Sequence[str]) -> Settings:
    """Reads the settings; where a flag or the environment asks for a log of JSON, what is wrong is a record of it."""
    first = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    first.add_argument("--log-format", default=os.environ.get("MEDSERVE_LOG_FORMAT"))
    try:
        log_format = first.parse_known_args(arguments)[0].log_format
    except argparse.ArgumentError:  # without a value
        log_format = ""
    if log_format != "json":
        return read_settings(arguments)
    set_up_logs("json", "info")
    told = io.StringIO()
    try:
        with redirect_stderr(told):
            return read_settings(arguments)
    except SystemExit as end:
        if not end.code:
            raise
        text = end.code if isinstance(end.code, str) else told.getvalue().rstrip().rpartition("\n")[2]
        for line in text.splitlines():
            log.critical("%s", line.removeprefix("medserve-server: "))
        raise SystemExit(end.code if isinstance(end.code, int) else 1) from None


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
    from medserve_server.process.lifecycle import Server  # noqa: PLC0415
    from medserve_server.process.served import served_models  # noqa: PLC0415

    server = Server(settings)
    signals = itertools.count()

    def stop() -> None:
        if next(signals):
            log.warning("asked to stop a second time: calls that are being answered are dropped")
            raise SystemExit(1)
        server.stop()

    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop)

    def started(server: Server) -> None:
        told = settings.model_copy(update={"http_port": server.http_port})
        announce(told, served_models(server), server.port, server.metrics_port)

    await server.run(started)


def _hold_standard_streams() -> None:
    """Opens those that are closed onto nothing: else a connection gets their number, and what is written to them."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the least number that is free
