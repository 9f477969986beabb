"""The command line: its arguments, and how every error ends it."""

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
    """Runs the command `medserve`.

    Args:
        arguments: those of the command line, by default the process's own.

    Returns:
        The exit status; `medserve --help` lists them.

    Raises:
        SystemExit: after `--help`, or with 2 where the arguments are wrong.
    """
    terminal.escape_what_cannot_be_written()
    options = _parser().parse_args(arguments)
    try:
        with _connect(options) as client:
            return _run(client, options)
    except UsageError as error:
        terminal.complain(f"medserve: {error}")
        return ExitCode.USAGE
    except InferenceError as error:
        terminal.complain(f"medserve: {_explain(error, options)}")
        return exit_codes.of(error)
    except KeyboardInterrupt:
        return ExitCode.INTERRUPTED
    except BrokenPipeError:
        # The reader of our output has left, `| head` for one. Python would complain at its end.
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
        raise UsageError(f"{error.filename}: can't be read: {error.strerror}") from error
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
    raise AssertionError(f"no such command: {options.command}")  # argparse has refused it


def _image_reasons(options: argparse.Namespace) -> ImageReasons | None:
    if not (options.class_activation or options.occlusion):
        if options.overlay is not None or options.label:
            raise UsageError("--overlay and --label are about maps; ask for --class-activation or --occlusion too")
        return None
    if options.overlay is None and options.output is not None and options.output.suffix.lower() == ".csv":
        raise UsageError("a map has no place in a CSV; write a .jsonl file, or the maps with --overlay")
    return ImageReasons(options.label, options.class_activation, options.occlusion, overlay=options.overlay is not None)


def _risk_reasons(options: argparse.Namespace) -> RiskReasons | None:
    if not options.shapley and options.what_if is None:
        if options.horizon:
            raise UsageError("--horizon is about reasons; ask for --shapley or --what-if too")
        return None
    return RiskReasons(options.horizon, options.shapley, options.what_if)


def _explain(error: InferenceError, options: argparse.Namespace) -> str:
    match error:
        case TlsMismatchError():
            return error.message
        case UnavailableError():
            return f"no server answers at {options.server} (--server names another): {error.message}"
        case DeadlineExceededError():
            return f"{options.server} did not answer within {options.timeout:g} seconds (--timeout gives it more)"
    return error.message or error.code.name


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="medserve",
        description="Asks a medserve server.",
        epilog=exit_codes.SUMMARY,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_standard_options(parser)
    _add_connection(parser, os.environ.get("MEDSERVE_SERVER") or DEFAULT_TARGET, DEFAULT_TIMEOUT)
    parser.set_defaults(tls=False, ca=None, cert=None, key=None, token_file=None)
    # The same flags behind the subcommand; there they have no default that would undo one given before it.
    connection = argparse.ArgumentParser(add_help=False)
    _add_connection(connection, argparse.SUPPRESS, argparse.SUPPRESS)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def add(name: str, text: str, more: str = "") -> argparse.ArgumentParser:
        return commands.add_parser(name, parents=[connection], help=text, description=f"{text} {more}")

    add("models", "List the models that the server has.")

    command = add("describe", "Show all about a model: what it takes, what it tells, how good it is.")
    command.add_argument("model", metavar="MODEL")
    _add_version(command)
    command.add_argument("--all", action="store_true", help="also the figures of subgroups")
    command.add_argument("--json", action="store_true", help="one JSON document with the whole manifest")

    command = add(
        "classify",
        "Classify pictures.",
        "Of a FOLDER and the folders in it, files are taken that have the suffix or the first bytes of a picture.",
    )
    command.add_argument(
        "files",
        nargs="+",
        type=Path,
        metavar="FILE|FOLDER",
        help="PNG, JPEG, TIFF or DICOM; - is standard input; links to folders in a folder are not followed",
    )
    _add_model(command)
    command.add_argument("--top-k", type=_count, default=0, help="labels listed for each picture; 0, the default: all")
    command.add_argument("--frame", type=_count, default=0, help="which frame of a DICOM file, from 0 (the default)")
    outputs = command.add_mutually_exclusive_group()
    outputs.add_argument("--json", action="store_true", help="one JSON document for each file, each on a line")
    outputs.add_argument(
        "-o",
        "--output",
        type=_results_file,
        metavar="OUT.csv|OUT.jsonl",
        help="write each result there when it comes. Run again, the command leaves out files that OUT holds under the "
        "same path, size and time of change; it tries again what failed, and replaces what has changed",
    )
    command.add_argument("--class-activation", action="store_true", help="show which places the network itself weighed")
    command.add_argument(
        "--occlusion", action="store_true", help="show how far the probability falls where each place is covered"
    )
    command.add_argument("--label", default="", help="the label that maps speak of; by default the one decided for")
    command.add_argument(
        "--overlay", type=Path, metavar="FOLDER", help="write each map over its picture there, as NAME.occlusion.png"
    )

    command = add(
        "risk",
        "Predict the risk of the patients in a CSV file.",
        "Its columns are named as the model's features (medserve describe MODEL); an empty cell is a missing value; "
        "other columns are carried through. Comma, semicolon or tab may separate them; numbers have a decimal point.",
    )
    command.add_argument("file", type=Path, metavar="FILE.csv", help="- is standard input")
    command.add_argument(
        "-o",
        "--output",
        type=_results_file,
        metavar="OUT.csv|OUT.jsonl",
        help="written when all rows are done, over what was there; by default a table on a terminal, CSV in a pipe",
    )
    command.add_argument("--json", action="store_true", help="one JSON document for each row, each on a line")
    command.add_argument("--shapley", action="store_true", help="show how far each feature moves the risk")
    command.add_argument("--what-if", metavar="FEATURE", help="show the risk with other values of this feature")
    command.add_argument(
        "--horizon", default="", help="label of the one whose risk is explained, by default the model's reference"
    )
    _add_model(command)

    command = add("health", "Tell whether the server is serving.")
    command.add_argument("service", nargs="?", default="", metavar="SERVICE", help="e.g. medserve.v1.PatientRisk")

    command = add(
        "loadtest",
        "Measure how much load the server bears.",
        "In an open loop latency counts from when a request was due, so that a server that stalls can't hide it. "
        "--tls, --ca, --cert, --key and --token-file hold for the load as for any call.",
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
        help=f"by default MEDSERVE_SERVER from the environment, or {DEFAULT_TARGET}",
    )
    parser.add_argument(
        "--timeout",
        metavar="SECONDS",
        type=_seconds,
        default=timeout,
        help=f"for one call, by default {DEFAULT_TIMEOUT:g}",
    )
    add = partial(parser.add_argument, default=argparse.SUPPRESS)
    add("--tls", action="store_true", help="encrypt; --ca, --cert and --key say so too")
    add("--ca", type=Path, metavar="FILE", help="authorities to trust (PEM), by default those of the public web")
    add("--cert", type=Path, metavar="FILE", help="your certificate (PEM), where the server asks for one")
    add("--key", type=Path, metavar="FILE", help="its private key (PEM)")
    add("--token-file", type=Path, metavar="FILE", help="holds your token; by default MEDSERVE_TOKEN is the token")


def _add_model(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", help="by default the only one for this task")
    _add_version(parser)


def _add_version(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--version", default="", help="by default the highest that is ready")


def _server(text: str) -> str:
    if ":" not in text.rpartition("]")[2]:  # gRPC would take port 443
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
            f"{text!r} names no format; expected a name that ends in {' or '.join(FORMATS)}"
        )
    return path


def _seconds(text: str) -> float:
    seconds = float(text)
    if not 0 < seconds < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is not a number of seconds above 0")
    return seconds


def _count(text: str) -> int:
    count = int(text)
    if not 0 <= count < 2**32:  # as the contract has it
        raise argparse.ArgumentTypeError(f"{text} is not a whole number from 0 to 4294967295")
    return count
