"""Settings from flags, environment variables and a file, and the errors about invalid ones."""

import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from medserve_server.config import Settings
from medserve_server.process.flags import GROUPS, read_settings, warnings_about_environment

Refused = Callable[..., str]


@pytest.fixture(autouse=True)
def _no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith(("MEDSERVE_", "OTEL_")):
            monkeypatch.delenv(name)


@pytest.fixture
def refused(monkeypatch: pytest.MonkeyPatch) -> Refused:
    """Returns a function that reads invalid settings from flags and variables, and returns the error."""

    def read(*flags: str, **variables: str) -> str:
        with monkeypatch.context() as patch:
            for name, value in variables.items():
                patch.setenv(name, value)
            with pytest.raises(SystemExit) as caught:
                read_settings(flags)
        assert isinstance(caught.value.code, str), "Python prints it and exits with status 1"
        return caught.value.code

    return read


def test_help_lists_every_setting_once_in_a_group(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert sorted(name for names in GROUPS.values() for name in names) == sorted(Settings.model_fields)
    monkeypatch.setenv("COLUMNS", "100")
    with pytest.raises(SystemExit) as caught:
        read_settings(["--help"])
    assert caught.value.code == 0
    shown = capsys.readouterr().out
    for name in Settings.model_fields:
        flag = name.replace("_", "-")
        assert len(re.findall(rf"^  --{flag}\b(?!-)", shown, re.MULTILINE)) == 1, flag
    for title in GROUPS:
        assert f"\n{title}:\n" in shown
    assert not re.search(r"tuple|null|None|\(\)|False", shown)


@pytest.mark.parametrize(
    ("setting", "value", "expected"),
    [
        ("port", "many", "is 'many', expected a whole number"),
        ("port", "80.5", "is '80.5', expected a whole number"),
        ("port", "99999", "is '99999', expected 65535 or less"),
        ("port", "", "is '', expected a whole number"),
        ("cuda_device", "-1", "is '-1', expected 0 or more"),
        ("workers", "0", "is '0', expected a number above 0"),
        ("threads", "0", "is '0', expected a number above 0"),
        ("poll_interval", "often", "is 'often', expected a number"),
        ("poll_interval", "0", "is '0', expected"),
        ("transport", "pigeon", "is 'pigeon', expected 'auto', 'envoy' or 'grpcio'"),
        ("version_policy", "newest", "'newest' is not a rule, expected all, latest:N"),
        ("otlp_endpoint", "collector:4317", "is not the address of a collector, expected http://HOST:PORT"),
    ],
)
def test_invalid_value_is_reported_with_its_source(
    refused: Refused, setting: str, value: str, expected: str, tmp_path: Path
) -> None:
    flag, variable = f"--{setting.replace('_', '-')}", f"MEDSERVE_{setting.upper()}"
    file = tmp_path / "settings.toml"
    file.write_text(f'{setting} = "{value}"\n')
    sources = {
        flag: refused(f"{flag}={value}"),
        variable: refused(**{variable: value}),
        f"{file}: {setting}": refused("--config", str(file)),
    }
    for source, error in sources.items():
        assert error.startswith(f"medserve-server: {source}: {expected}")
        assert "\n" not in error


@pytest.mark.parametrize("value", ["a bool", "2"])
def test_invalid_boolean_variable_is_reported(refused: Refused, value: str) -> None:
    error = refused(MEDSERVE_REQUIRE_AUTH=value)
    assert error == f"medserve-server: MEDSERVE_REQUIRE_AUTH: is '{value}', expected true or false"


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"max_batch_row = 3", "max_batch_row: is not a setting (did you mean max_batch_rows?)"),
        (b"port = [1]", "port: is [1], expected a whole number"),
        (b"host = 3", "host: is 3, expected a string"),
        (b"port =", "is not valid TOML: "),
        (b"\xff", "is not valid TOML: "),
    ],
)
def test_errors_in_the_settings_file_are_reported(
    refused: Refused, content: bytes, problem: str, tmp_path: Path
) -> None:
    file = tmp_path / "settings.toml"
    file.write_bytes(content)
    for error in (refused("--config", str(file)), refused(MEDSERVE_CONFIG=str(file))):
        assert str(file) in error
        assert problem in error


def test_missing_settings_file_and_folder_are_reported(refused: Refused, tmp_path: Path) -> None:
    assert refused("--config", str(tmp_path)) == (
        f"medserve-server: --config {tmp_path}: can't be read: Is a directory"
    )
    assert refused("--config", "nowhere.toml") == "medserve-server: --config nowhere.toml: no such file"


def test_unknown_variable_is_reported_without_its_value(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("TOKEN_FILE", "MAX_BATCH_ROW", "QQQ", "SERVER", "TOKEN", "DATA", "PORT"):
        monkeypatch.setenv(f"MEDSERVE_{name}", "s3cret")
    assert [line.removeprefix("environment variable ") for line in warnings_about_environment()] == [
        "MEDSERVE_MAX_BATCH_ROW is not a setting (did you mean MEDSERVE_MAX_BATCH_ROWS?); it is ignored",
        "MEDSERVE_QQQ is not a setting; it is ignored",
        "MEDSERVE_TOKEN_FILE is not a setting (did you mean MEDSERVE_METRICS_TOKEN_FILE?); it is ignored",
    ]


def test_variable_of_a_repeated_flag_is_a_list(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MEDSERVE_LOAD_MODEL", "x, y")
    assert read_settings(["--model-control", "explicit"]).load_model == ("x", "y")
    flags = ["--model-control", "explicit", "--load-model", "z", "--load-model", "x"]
    assert read_settings(flags).load_model == ("z", "x")


def test_flags_precede_variables_and_variables_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "settings.toml"
    file.write_text("max_batch_rows = 3\nmax_request_rows = 5\nmax_message_mib = 2\n")
    monkeypatch.setenv("MEDSERVE_CONFIG", str(file))
    monkeypatch.setenv("MEDSERVE_MAX_BATCH_ROWS", "4")
    monkeypatch.setenv("MEDSERVE_MAX_REQUEST_ROWS", "6")
    settings = read_settings(["--max-batch-rows", "5"])
    assert (settings.max_batch_rows, settings.max_request_rows, settings.max_message_mib) == (5, 6, 2)


def test_setting_overrides_opentelemetry_variable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://theirs:4317")
    assert read_settings([]).otlp_endpoint == "http://theirs:4317"
    assert read_settings(["--otlp-endpoint", "http://ours:4317"]).otlp_endpoint == "http://ours:4317"
    file = tmp_path / "settings.toml"
    file.write_text('otlp_endpoint = "http://ours:4317"\n')
    assert read_settings(["--config", str(file)]).otlp_endpoint == "http://ours:4317"


@pytest.mark.parametrize(
    ("name", "value"), [("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf"), ("OTEL_TRACES_EXPORTER", "none")]
)
def test_variables_for_other_exporters_disable_tracing(name: str, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector:4317")
    monkeypatch.setenv(name, value)
    assert read_settings([]).otlp_endpoint is None


def test_invalid_address_in_opentelemetry_variable_is_reported_without_it(refused: Refused) -> None:
    error = refused(OTEL_EXPORTER_OTLP_ENDPOINT="http://me:s3cret@collector:4317")
    assert error.startswith("medserve-server: OTEL_EXPORTER_OTLP_ENDPOINT: is not the address of a collector")
    assert "s3cret" not in error
