"""Argument parsing, dispatch and error handling of the `medserve` command."""

import argparse
import os
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from medserve_client.channel import DEFAULT_TARGET, DEFAULT_TIMEOUT, Tls
from medserve_client.cli import exit_codes, terminal
from medserve_client.cli.classify.command import classify
from medserve_client.cli.describe import describe
from medserve_client.cli.exit_codes import ExitCode, UsageError
from medserve_client.cli.health import show_health
from medserve_client.cli.loadtest import options as loadtest_options
from medserve_client.cli.loadtest.command import loadtest
from medserve_client.cli.models import choose_model, list_models
from medserve_client.cli.results_file import FORMATS
from medserve_client.cli.risk.command import score
from medserve_client.client import Client
from medserve_client.errors import DeadlineExceededError, InferenceError, TlsMismatchError, UnavailableError
from medserve_client.reasons import ImageReasons, RiskReasons
from medserve_client.results import Task
from medserve_client.target import check_target
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
        case "classify":
            model = choose_model(client, Task.IMAGE_CLASSIFICATION, options.model, options.version)
            reasons, overlays, output = _image_reasons(options), options.overlay, options.output
            names = [str(file) for file in options.files]
            return classify(
                client, model, names, options.top_k, options.frame, reasons, overlays, output, as_json=options.json
            )
        case "risk":
            model = choose_model(client, Task.PATIENT_RISK, options.model, options.version)
            return score(client, model, options.file, options.output, _risk_reasons(options), as_json=options.json)
        case "health":
            return show_health(client, options.service)
        case "loadtest":
            return loadtest(client, options)
    raise AssertionError(f"no such command: {options.command}")  # argparse has rejected it


def _image_reasons(options: argparse.Namespace) -> ImageReasons | None:
    if not (options.class_activation or options.occlusion):
        if options.overlay is not None or options.label:
            raise UsageError("--overlay and --label apply to maps; add --class-activation or --occlusion")
        return None
    if options.overlay is None and options.output is not None and options.output.suffix.lower() == ".csv":
        raise UsageError("a CSV cannot hold maps; write a .jsonl file, or save the maps with --overlay")
    return ImageReasons(options.label, options.class_activation, options.occlusion, overlay=options.overlay is not None)


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
    command.add_argument(
        "files",
        nargs="+",
        type=Path,
        metavar="FILE|FOLDER",
        help="PNG, JPEG, TIFF or DICOM; - is standard input; symbolic links to folders in a folder are not followed",
    )
    _add_model(command)
    command.add_argument("--top-k", type=_count, default=0, help="number of labels for each image; default: 0, all")
    command.add_argument("--frame", type=_count, default=0, help="frame of DICOM files, counted from 0; default: 0")
    outputs = command.add_mutually_exclusive_group()
    outputs.add_argument("--json", action="store_true", help="print one JSON document per line for each file")
    outputs.add_argument(
        "-o",
        "--output",
        type=_results_file,
        metavar="OUT.csv|OUT.jsonl",
        help="write results to this file as they arrive. When run again, the command skips files that OUT already has "
        "with the same path, size and modification time, retries failed files and replaces the results of changed ones",
    )
    command.add_argument("--class-activation", action="store_true", help="show class activation maps")
    command.add_argument(
        "--occlusion", action="store_true", help="show occlusion maps: the drop in probability when a patch is covered"
    )
    command.add_argument("--label", default="", help="label that the maps explain; default: the predicted label")
    command.add_argument(
        "--overlay",
        type=Path,
        metavar="FOLDER",
        help="write each map, rendered over its image, to this folder, e.g. as NAME.occlusion.png",
    )

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
        type=_results_file,
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
        type=_server,
        default=server,
        help=f"server address; default: the environment variable MEDSERVE_SERVER, or {DEFAULT_TARGET}",
    )
    parser.add_argument(
        "--timeout",
        metavar="SECONDS",
        type=_seconds,
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


def _server(text: str) -> str:
    if ":" not in text.rpartition("]")[2]:  # gRPC would default to port 443
        raise argparse.ArgumentTypeError(f"{text!r} has no port; write HOST:PORT, e.g. {DEFAULT_TARGET}")
    try:
        check_target(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    return text


def _results_file(text: str) -> Path:
    path = Path(text)
    if path.suffix.lower() not in FORMATS:
        raise argparse.ArgumentTypeError(
            f"{text!r} has no known suffix; expected a file name that ends in {' or '.join(FORMATS)}"
        )
    return path


def _seconds(text: str) -> float:
    seconds = float(text)
    if not 0 < seconds < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is not a finite number of seconds above 0")
    return seconds


def _count(text: str) -> int:
    count = int(text)
    if not 0 <= count < 2**32:  # a uint32 field
        raise argparse.ArgumentTypeError(f"{text} is not an integer from 0 to 4294967295")
    return count
