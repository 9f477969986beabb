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
    """Reads the settings and serves; if that is impossible, prints the reason and exits with status 1."""
    if sys.argv[1:2] == ["token"]:
        _create_token(sys.argv[2:])
        return
    _reopen_standard_streams()
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
    """Reads the settings; reports errors as log records if a flag or the environment requests JSON logs."""
    early = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    early.add_argument("--log-format", default=os.environ.get("MEDSERVE_LOG_FORMAT"))
    try:
        log_format = early.parse_known_args(arguments)[0].log_format
    except argparse.ArgumentError:  # the flag has no value
        log_format = ""
    if log_format != "json":
        return read_settings(arguments)
    set_up_logs("json", "info")
    captured = io.StringIO()
    try:
        with redirect_stderr(captured):
            return read_settings(arguments)
    except SystemExit as end:
        if not end.code:
            raise
        text = end.code if isinstance(end.code, str) else captured.getvalue().rstrip().rpartition("\n")[2]
        for line in text.splitlines():
            log.critical("%s", line.removeprefix("medserve-server: "))
        raise SystemExit(end.code if isinstance(end.code, int) else 1) from None


def _create_token(arguments: Sequence[str]) -> None:
    """Prints the line for --tokens to standard output and the token, which is not stored, to standard error."""
    parser = argparse.ArgumentParser(
        prog="medserve-server token",
        description="Creates a token. Prints its line for --tokens to standard output and the token to standard error; "
        "the token cannot be recovered later: medserve-server token NAME >> tokens.txt 2> NAME.token",
        allow_abbrev=False,
    )
    parser.add_argument("name", metavar="NAME", help="client name shown in logs and errors")
    parser.add_argument(
        "--scopes",
        default=f"{INFER},{METADATA}",
        help=f"comma-separated subset of {','.join(SCOPES)} (default: %(default)s). priority: requests may set "
        "priority 1 and are then run before those of other clients",
    )
    options = parser.parse_args(arguments)
    try:
        token, line = new_token(options.name, options.scopes)
    except ValueError as error:
        raise SystemExit(f"medserve-server token: {error}") from None
    sys.stdout.write(f"{line}\n")
    sys.stderr.write(f"{token}\n")


async def _serve(settings: Settings) -> None:
    """Serves in this process, without a supervisor."""
    # Imported here: the supervisor needs neither gRPC nor ONNX Runtime.
    from medserve_server.process.lifecycle import Server  # noqa: PLC0415
    from medserve_server.process.served import served_models  # noqa: PLC0415

    server = Server(settings)
    signals = itertools.count()

    def stop() -> None:
        if next(signals):
            log.warning("second stop signal: aborting calls in progress")
            raise SystemExit(1)
        server.stop()

    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop)

    def started(server: Server) -> None:
        bound = settings.model_copy(update={"http_port": server.http_port})
        announce(bound, served_models(server), server.port, server.metrics_port)

    await server.run(started)


def _reopen_standard_streams() -> None:
    """Opens /dev/null for closed standard streams; otherwise a connection would get their number and their output."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # gets the lowest free number
