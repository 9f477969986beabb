"""Argument parsing, dispatch and error handling of the `medserve` command."""

import argparse
import os
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from medserve_client.channel import DEFAULT_TARGET, DEFAULT_TIMEOUT, Tls
from medserve_client.cli import argument_types, exit_codes, terminal
from medserve_client.cli.classify import options as classify_options
from medserve_client.cli.classify.command import classify
from medserve_client.cli.describe import describe
from medserve_client.cli.exit_codes import ExitCode, UsageError
from medserve_client.cli.health import show_health
from medserve_client.cli.loadtest import options as loadtest_options
from medserve_client.cli.loadtest.command import loadtest
from medserve_client.cli.models import choose_model, list_models
from medserve_client.cli.risk.command import score
from medserve_client.cli.segment import options as segment_options
from medserve_client.cli.segment.command import segment
from medserve_client.client import Client
from medserve_client.errors import DeadlineExceededError, InferenceError, TlsMismatchError, UnavailableError
from medserve_client.reasons import RiskReasons
from medserve_client.results import Task
from medserve_proto.standard_options import add_standard_options


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the `medserve` command.

    Args:
        arguments: command-line arguments; by default those of the process.

    Returns:
        The exit status; `medserve --help` lists the values.

    Raises:
        SystemExit: after `--help`, or with status 2 if the arguments are invalid.
    """
    terminal.escape_unencodable_characters()
    options = _parser().parse_args(arguments)
    try:
        with _connect(options) as client:
            return _run(client, options)
    except UsageError as error:
        terminal.print_error(f"medserve: {error}")
        return ExitCode.USAGE
    except InferenceError as error:
        terminal.print_error(f"medserve: {_explain(error, options)}")
        return exit_codes.of(error)
    except KeyboardInterrupt:
        return ExitCode.INTERRUPTED
    except BrokenPipeError:
        # The reader of standard output has exited, e.g. `| head`. Python would report an error on exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return ExitCode.SOME_FAILED


def _connect(options: argparse.Namespace) -> Client:
    files = (options.ca, options.cert, options.key)
    options.token = os.environ.get("MEDSERVE_TOKEN") or None
    try:
        tls = options.encryption = Tls(*files) if options.tls or any(files) else None
        if options.token_file is not None:
            options.token = options.token_file.read_text(encoding="utf-8").strip()
        return Client(options.server, timeout=options.timeout, tls=tls, token=options.token)
    except OSError as error:
        raise UsageError(f"{error.filename}: cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise UsageError(str(error)) from error


def _run(client: Client, options: argparse.Namespace) -> ExitCode:
    match options.command:
        case "models":
            return list_models(client)
        case "describe":
            return describe(client, options.model, options.version, as_json=options.json, subgroups=options.all)
        case "classify" | "segment":
            return _send_images(client, options)
        case "risk":
            model = choose_model(client, Task.PATIENT_RISK, options.model, options.version)
            return score(client, model, options.file, options.output, _risk_reasons(options), as_json=options.json)
        case "health":
            return show_health(client, options.service)
        case "loadtest":
            return loadtest(client, options)
    raise AssertionError(f"no such command: {options.command}")  # argparse has rejected it


def _send_images(client: Client, options: argparse.Namespace) -> ExitCode:
    names = [str(file) for file in options.files]
    if options.command == "segment":
        model = choose_model(client, Task.IMAGE_SEGMENTATION, options.model, options.version)
        return segment(client, model, names, segment_options.settings(options), segment_options.outputs(options))
    model = choose_model(client, Task.IMAGE_CLASSIFICATION, options.model, options.version)
    reasons, overlays, output = classify_options.image_reasons(options), options.overlay, options.output
    return classify(client, model, names, options.top_k, options.frame, reasons, overlays, output, as_json=options.json)


def _risk_reasons(options: argparse.Namespace) -> RiskReasons | None:
    if not options.shapley and options.what_if is None:
        if options.horizon:
            raise UsageError("--horizon applies to explanations; add --shapley or --what-if")
        return None
    return RiskReasons(options.horizon, options.shapley, options.what_if)


def _explain(error: InferenceError, options: argparse.Namespace) -> str:
    match error:
        case TlsMismatchError():
            return error.message
        case UnavailableError():
            return f"no server answers at {options.server} (use --server to call another one): {error.message}"
        case DeadlineExceededError():
            return f"{options.server} did not answer within {options.timeout:g} seconds (increase with --timeout)"
    return error.message or error.code.name


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="medserve",
        description="Command-line client for a medserve server.",
        epilog=exit_codes.SUMMARY,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_standard_options(parser)
    _add_connection(parser, os.environ.get("MEDSERVE_SERVER") or DEFAULT_TARGET, DEFAULT_TIMEOUT)
    parser.set_defaults(tls=False, ca=None, cert=None, key=None, token_file=None)
    # The same flags after the subcommand, without defaults, which would override a flag given before it.
    connection = argparse.ArgumentParser(add_help=False)
    _add_connection(connection, argparse.SUPPRESS, argparse.SUPPRESS)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def add(name: str, text: str, more: str = "") -> argparse.ArgumentParser:
        return commands.add_parser(name, parents=[connection], help=text, description=f"{text} {more}")

    add("models", "List the models on the server.")

    command = add("describe", "Describe a model: its inputs, outputs and performance metrics.")
    command.add_argument("model", metavar="MODEL")
    _add_version(command)
    command.add_argument("--all", action="store_true", help="include the metrics of subgroups")
    command.add_argument("--json", action="store_true", help="print the whole manifest as one JSON document")

    command = add(
        "classify",
        "Classify images.",
        "A FOLDER is searched recursively for files with the suffix or the first bytes of an image file.",
    )
    classify_options.add_options(command)
    _add_model(command)

    command = add(
        "segment",
        "Segment images: count and measure objects.",
        "Lengths are in millimeters if the pixel spacing is known, from the file or --pixel-spacing, and in pixels "
        "otherwise. A FOLDER is searched recursively for files with the suffix or the first bytes of an image file.",
    )
    segment_options.add_options(command)
    _add_model(command)

    command = add(
        "risk",
        "Predict the risk of the patients in a CSV file.",
        "Columns are named after the model's features (medserve describe MODEL); an empty cell is a missing value; "
        "other columns are copied to the output. The delimiter is a comma, semicolon or tab; numbers have a decimal "
        "point.",
    )
    command.add_argument("file", type=Path, metavar="FILE.csv", help="- is standard input")
    command.add_argument(
        "-o",
        "--output",
        type=argument_types.results_file,
        metavar="OUT.csv|OUT.jsonl",
        help="output file, written once all rows are done, replacing an existing one; "
        "default: a table on a terminal, CSV in a pipe",
    )
    command.add_argument("--json", action="store_true", help="print one JSON document per line for each row")
    command.add_argument("--shapley", action="store_true", help="show how far each feature moves the risk")
    command.add_argument("--what-if", metavar="FEATURE", help="show the risk with other values of this feature")
    command.add_argument(
        "--horizon", default="", help="label of the horizon to explain; default: the model's reference horizon"
    )
    _add_model(command)

    command = add("health", "Show the health status of the server.")
    command.add_argument("service", nargs="?", default="", metavar="SERVICE", help="e.g. medserve.v1.PatientRisk")

    command = add(
        "loadtest",
        "Measure throughput and latency under load.",
        "In an open loop, latency is measured from the scheduled send time, so that stalls of the server are included. "
        "--tls, --ca, --cert, --key and --token-file also apply to the load.",
    )
    _add_model(command)
    loadtest_options.add_options(command)
    return parser


def _add_connection(parser: argparse.ArgumentParser, server: str, timeout: float | str) -> None:
    parser.add_argument(
        "--server",
        metavar="HOST:PORT",
        type=argument_types.server,
        default=server,
        help=f"server address; default: the environment variable MEDSERVE_SERVER, or {DEFAULT_TARGET}",
    )
    parser.add_argument(
        "--timeout",
        metavar="SECONDS",
        type=argument_types.seconds,
        default=timeout,
        help=f"timeout of one call; default: {DEFAULT_TIMEOUT:g}",
    )
    add = partial(parser.add_argument, default=argparse.SUPPRESS)
    add("--tls", action="store_true", help="use TLS; implied by --ca, --cert and --key")
    add("--ca", type=Path, metavar="FILE", help="trusted root certificates (PEM); default: public roots")
    add("--cert", type=Path, metavar="FILE", help="client certificate (PEM), for servers that require mutual TLS")
    add("--key", type=Path, metavar="FILE", help="private key of the client certificate (PEM)")
    add("--token-file", type=Path, metavar="FILE", help="file with the token; default: the token in MEDSERVE_TOKEN")


def _add_model(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", help="model name; default: the only model for this task")
    _add_version(parser)


def _add_version(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--version", default="", help="model version; default: the highest one that is ready")
