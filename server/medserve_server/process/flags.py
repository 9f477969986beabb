"""Reads the settings from flags, environment variables and a TOML file, in this order of precedence."""

import argparse
import difflib
import os
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from pydantic import ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from medserve_proto.standard_options import add_standard_options
from medserve_server.config import Settings

DESCRIPTION = """Serves ONNX models over gRPC and REST. Every flag is also an environment variable (--max-batch-rows:
MEDSERVE_MAX_BATCH_ROWS) and a key of the TOML file (max_batch_rows); in an environment variable, commas separate the
values of a flag that may be repeated. Flags take precedence over environment variables, and these over the file."""

PREFIX = "MEDSERVE_"
OTHER_VARIABLES = ["SERVER", "TOKEN", "DATA"]
"""Environment variables with this prefix that `medserve` and `medserve-train` read."""
OTLP_ENDPOINT = "OTEL_EXPORTER_OTLP_ENDPOINT"
MAX_SHOWN = 128
"""Maximum length of an invalid value in an error message, in characters."""

# Groups of flags in --help, and the metavar of each flag; empty if it follows from the field's type.
GROUPS: dict[str, dict[str, str]] = {
    "models": {
        "models": "FOLDER",
        "model_control": "",
        "poll_interval": "SECONDS",
        "load_model": "NAME",
        "version_policy": "POLICY",
        "max_model_mib": "MIB",
        "require_signed": "FILE",
    },
    "network": {
        "host": "ADDRESS",
        "port": "PORT",
        "http_port": "PORT",
        "metrics_port": "PORT",
        "transport": "",
        "cors_origin": "ORIGIN",
        "web": "",
    },
    "TLS and access": {
        "tls_certificate": "FILE",
        "tls_key": "FILE",
        "tls_client_ca": "FILE",
        "tokens": "FILE",
        "require_auth": "",
        "metrics_token_file": "FILE",
    },
    "execution provider": {
        "provider": "",
        "max_deviation": "NUMBER",
        "allow_fallback": "",
        "threads": "N",
        "cuda_device": "INDEX",
        "cuda_memory_limit_mib": "MIB",
    },
    "batching and queue": {
        "max_batch_rows": "N",
        "max_batch_delay_ms": "MS",
        "max_pending_requests": "N",
        "max_run_seconds": "SECONDS",
    },
    "limits of a request": {
        "max_request_rows": "N",
        "max_message_mib": "MIB",
        "max_image_megapixels": "MEGAPIXELS",
        "max_image_ratio": "RATIO",
        "max_name_length": "N",
        "max_patient_features": "N",
    },
    "limits of a client or connection": {
        "max_client_calls": "N",
        "max_client_rate": "RATE",
        "max_connections": "N",
        "max_connection_streams": "N",
        "max_connection_age": "SECONDS",
        "max_connection_idle": "SECONDS",
        "min_ping_interval": "SECONDS",
    },
    "processes": {
        "config": "FILE",
        "workers": "N",
        "drain_delay": "SECONDS",
        "grace": "SECONDS",
    },
    "observability": {
        "log_level": "",
        "log_format": "",
        "access_log": "",
        "otlp_endpoint": "URL",
    },
}

# Expected values, by pydantic's error types.
EXPECTED = {
    "bool_parsing": "true or false",
    "bool_type": "true or false",
    "float_parsing": "a number",
    "float_type": "a number",
    "int_from_float": "a whole number",
    "int_parsing": "a whole number",
    "int_type": "a whole number",
    "greater_than": "a number above {gt:g}",
    "greater_than_equal": "{ge:g} or more",
    "less_than_equal": "{le:g} or less",
    "literal_error": "{expected}",
    "path_type": "a path",
    "string_type": "a string",
    "tuple_type": "a list",
}


def read_settings(arguments: Sequence[str]) -> Settings:
    """Reads the settings from flags, environment variables MEDSERVE_* and the file given by `--config`.

    Raises:
        SystemExit: after `--help`, or with one line per invalid setting.
    """
    flags = vars(make_parser().parse_args(arguments))
    variables = {name: os.environ[_variable(name)] for name in Settings.model_fields if _variable(name) in os.environ}
    path = flags.get("config", variables.get("config"))
    file = _read_file(path, "--config" if "config" in flags else _variable("config")) if path is not None else {}
    try:
        return Settings.model_validate(_standard_settings() | file | variables | flags)
    except ValidationError as error:
        sources = {
            **dict.fromkeys(_standard_settings(), OTLP_ENDPOINT),
            **{name: f"{path}: {name}" for name in file},
            **{name: _variable(name) for name in variables},
            **{name: _flag(name) for name in flags},
        }
        raise SystemExit("\n".join(_error_line(problem, sources) for problem in error.errors())) from None


def make_parser() -> argparse.ArgumentParser:
    """Returns the parser of the flags; omitted flags are absent from its result, and values are not validated."""
    parser = argparse.ArgumentParser(
        prog="medserve-server",
        usage="medserve-server [--FLAG VALUE ...]\n       medserve-server token NAME",
        description=DESCRIPTION,
        epilog="To create tokens, see medserve-server token --help.",
        allow_abbrev=False,
        argument_default=argparse.SUPPRESS,
    )
    add_standard_options(parser)
    for title, metavars in GROUPS.items():
        group = parser.add_argument_group(title)
        for name, metavar in metavars.items():
            field = Settings.model_fields[name]
            group.add_argument(_flag(name), help=_help(field), **_argument_options(field, metavar))
    return parser


def warnings_about_environment() -> list[str]:
    """Returns a warning per unknown MEDSERVE_* variable, without its value, which may be secret."""
    known = [name.upper() for name in Settings.model_fields] + OTHER_VARIABLES
    names = sorted(name.removeprefix(PREFIX) for name in os.environ if name.startswith(PREFIX))
    lines = [
        f"environment variable {PREFIX}{name} is not a setting{_closest(name, known, PREFIX)}; it is ignored"
        for name in names
        if name not in known
    ]
    if os.environ.get(OTLP_ENDPOINT) and not _can_send_traces():
        lines.append(f"no traces are sent to the address in {OTLP_ENDPOINT}: the extra otel is not installed")
    return lines


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _variable(name: str) -> str:
    return f"{PREFIX}{name.upper()}"


def _argument_options(field: FieldInfo, metavar: str) -> dict[str, Any]:
    """Returns the keyword arguments of `add_argument` for a field."""
    if field.annotation in {bool, bool | None}:
        return {"action": argparse.BooleanOptionalAction}
    if get_origin(field.annotation) is Literal:
        metavar = f"{{{','.join(get_args(field.annotation))}}}"
    return {"metavar": metavar, "action": "append" if get_origin(field.annotation) is tuple else "store"}


def _help(field: FieldInfo) -> str:
    """Returns the description of a field, with its default unless that is None, False or empty."""
    default = f"{field.default:g}" if isinstance(field.default, float) else field.default
    tail = "" if default in (None, False, ()) else f" (default: {default})"
    return f"{field.description}{tail}".replace("%", "%%")


def _standard_settings() -> dict[str, str]:
    """Returns the settings given by the standard variables of OpenTelemetry, as far as they are supported."""
    endpoint = os.environ.get(OTLP_ENDPOINT)
    protocol = os.environ.get("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")
    if not endpoint or protocol != "grpc" or os.environ.get("OTEL_TRACES_EXPORTER") == "none":
        return {}
    return {"otlp_endpoint": endpoint} if _can_send_traces() else {}


def _can_send_traces() -> bool:
    try:
        return find_spec("opentelemetry.exporter.otlp.proto.grpc") is not None
    except ModuleNotFoundError:
        return False


def _read_file(path: str, source: str) -> dict[str, Any]:
    """Returns the settings of a file.

    Raises:
        SystemExit: the file cannot be read.
    """
    try:
        return tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        problem = "no such file"
    except OSError as error:
        problem = f"can't be read: {error.strerror}"
    except ValueError as error:  # from the decoder or the parser
        problem = f"is not valid TOML: {error}"
    raise SystemExit(f"medserve-server: {source} {path}: {problem}")


def _error_line(problem: ErrorDetails, sources: Mapping[str, str]) -> str:
    """Returns the error message for a setting: its source, its value and what was expected."""
    name = str(problem["loc"][0])
    kind, context = problem["type"], problem.get("ctx", {})
    if kind == "extra_forbidden":
        text = f"is not a setting{_closest(name, Settings.model_fields)}"
    elif kind == "value_error":
        text = str(context["error"])
    else:
        expected = EXPECTED.get(kind, problem["msg"]).format_map(context)
        text = f"is {repr(problem['input'])[:MAX_SHOWN]}, expected {expected}"
    return f"medserve-server: {sources[name]}: {text}"


def _closest(name: str, known: Iterable[str], prefix: str = "") -> str:
    found = difflib.get_close_matches(name[:MAX_SHOWN], list(known), n=1)
    return f" (did you mean {prefix}{found[0]}?)" if found else ""
