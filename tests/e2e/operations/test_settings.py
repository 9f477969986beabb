"""Messages about settings: help, invalid values, and environment variables that are not settings."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from medserve_server.config import Settings
from medserve_server.process.flags import GROUPS
from samples import onnx_models
from servers.server_process import OTHER_PORTS, environment
from waiting import PATIENCE

FREE_PORTS = ("--port", "0", *OTHER_PORTS)


def ended(*flags: str, folder: str = ".", **variables: str) -> subprocess.CompletedProcess[str]:
    """Runs a server with only these flags and variables; it must exit without a signal."""
    return subprocess.run(
        [sys.executable, "-W", "error", "-m", "medserve_server", *flags],
        cwd=folder,
        env=environment() | variables,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )


@pytest.fixture
def no_models(tmp_path: Path) -> tuple[str, ...]:
    """Flags with which a server exits directly after reading its settings."""
    return (*FREE_PORTS, "--models", str(tmp_path), "--transport", "grpcio")


def test_help_lists_every_setting_once_in_a_group() -> None:
    assert sorted(name for names in GROUPS.values() for name in names) == sorted(Settings.model_fields)
    result = ended("--help", COLUMNS="100")
    assert result.returncode == 0
    for name in Settings.model_fields:
        flag = name.replace("_", "-")
        assert len(re.findall(rf"^  --{flag}\b(?!-)", result.stdout, re.MULTILINE)) == 1, flag
    for title in GROUPS:
        assert f"\n{title}:\n" in result.stdout
    assert not re.search(r"tuple|null|None|\(\)|False", result.stdout)


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
        ("transport", "pigeon", "is 'pigeon', expected 'auto', 'envoy' or 'grpcio'"),
        ("version_policy", "newest", "'newest' is not a rule, expected all, latest:N"),
        ("otlp_endpoint", "collector:4317", "is not the address of a collector, expected http://HOST:PORT"),
    ],
)
def test_invalid_value_is_reported_with_its_source(setting: str, value: str, expected: str, tmp_path: Path) -> None:
    flag, variable = f"--{setting.replace('_', '-')}", f"MEDSERVE_{setting.upper()}"
    file = tmp_path / "settings.toml"
    file.write_text(f'{setting} = "{value}"\n')
    sources = {
        flag: ended(f"{flag}={value}"),
        variable: ended(**{variable: value}),
        f"{file}: {setting}": ended("--config", str(file)),
    }
    for source, result in sources.items():
        assert result.returncode == 1
        assert result.stderr.startswith(f"medserve-server: {source}: {expected}")
        assert result.stderr.count("\n") == 1


@pytest.mark.parametrize("value", ["a bool", "2"])
def test_invalid_boolean_variable_is_reported(value: str) -> None:
    result = ended(MEDSERVE_REQUIRE_AUTH=value).stderr
    assert result == f"medserve-server: MEDSERVE_REQUIRE_AUTH: is '{value}', expected true or false\n"


def test_all_invalid_settings_are_reported_together() -> None:
    result = ended("--grace", "-1", "--port", "1", MEDSERVE_PORT="x", MEDSERVE_WORKERS="x").stderr
    assert result.splitlines() == [
        "medserve-server: MEDSERVE_WORKERS: is 'x', expected a whole number",
        "medserve-server: --grace: is '-1', expected 0 or more",
    ], "a flag wins over a variable"


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
def test_errors_in_the_settings_file_are_reported(content: bytes, problem: str, tmp_path: Path) -> None:
    file = tmp_path / "settings.toml"
    file.write_bytes(content)
    for result in (ended("--config", str(file)), ended(MEDSERVE_CONFIG=str(file))):
        assert result.returncode == 1
        assert str(file) in result.stderr
        assert problem in result.stderr
        assert "Traceback" not in result.stderr


def test_folder_as_settings_file_is_reported(tmp_path: Path) -> None:
    result = ended("--config", str(tmp_path))
    assert (result.returncode, result.stderr) == (
        1,
        f"medserve-server: --config {tmp_path}: can't be read: Is a directory\n",
    )


def test_unknown_variable_is_reported_without_its_value(no_models: tuple[str, ...]) -> None:
    variables = {"MEDSERVE_TOKEN_FILE": "s3cret", "MEDSERVE_MAX_BATCH_ROW": "s3cret", "MEDSERVE_QQQ": "s3cret"}
    result = ended(*no_models, **variables, MEDSERVE_SERVER="a:1", MEDSERVE_TOKEN="t", MEDSERVE_DATA="data").stderr  # noqa: S106
    lines = [line.partition("environment variable ")[2] for line in result.splitlines() if "WARNING" in line]
    assert lines == [
        "MEDSERVE_MAX_BATCH_ROW is not a setting (did you mean MEDSERVE_MAX_BATCH_ROWS?); it is ignored",
        "MEDSERVE_QQQ is not a setting; it is ignored",
        "MEDSERVE_TOKEN_FILE is not a setting (did you mean MEDSERVE_METRICS_TOKEN_FILE?); it is ignored",
    ]
    assert "s3cret" not in result


def test_variable_of_a_repeated_flag_is_a_list(tmp_path: Path) -> None:
    onnx_models.save(tmp_path, "x", onnx_models.add(1))
    flags = (*FREE_PORTS, "--models", str(tmp_path), "--model-control", "explicit", "--transport", "grpcio")
    result = ended(*flags, MEDSERVE_LOAD_MODEL="x, y").stderr
    assert "--load-model y: " in result
    assert "--load-model z: " in ended(*flags, "--load-model", "z", "--load-model", "x", MEDSERVE_LOAD_MODEL="y").stderr


@pytest.mark.parametrize("exists", [True, False])
def test_missing_models_are_reported_with_the_folder_and_remedies(exists: bool, tmp_path: Path) -> None:
    folder = tmp_path / "models"
    if exists:
        folder.mkdir()
    result = ended(*FREE_PORTS, "--transport", "grpcio", "--models", "models", folder=str(tmp_path))
    (line,) = result.stderr.splitlines()
    assert line.startswith("medserve-server: --models models: ")
    assert str(folder) in line
    for way in ("<name>/<version>/model.onnx", "models/ in a checkout", "medserve-train fit"):
        assert way in line


@pytest.mark.parametrize("workers", ["1", "2"])
def test_corrupt_model_is_reported_once(workers: str, transport: str, tmp_path: Path) -> None:
    for version in ("1", "2"):
        path = tmp_path / "x" / version / "model.onnx"
        path.parent.mkdir(parents=True)
        path.write_bytes(b"no model")
    result = ended(*FREE_PORTS, "--models", str(tmp_path), "--transport", transport, "--workers", workers)
    assert result.returncode == 1
    (line,) = result.stderr.splitlines()
    for version in ("1", "2"):
        assert line.count(f"{tmp_path}/x/{version}/model.onnx: ONNX Runtime cannot load the model") == 1
