"""Messages of the process about invalid settings, unknown environment variables and models that cannot be served."""

import subprocess
import sys
from pathlib import Path

import pytest

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


def test_all_invalid_settings_are_reported_together(tmp_path: Path) -> None:
    file = tmp_path / "settings.toml"
    file.write_text("port = 1\nthreads = 0\n")
    result = ended("--grace", "-1", "--port", "1", MEDSERVE_CONFIG=str(file), MEDSERVE_PORT="x", MEDSERVE_WORKERS="x")
    assert (result.returncode, result.stdout) == (1, "")
    assert sorted(result.stderr.splitlines()) == [
        "medserve-server: --grace: is '-1', expected 0 or more",
        f"medserve-server: {file}: threads: is 0, expected a number above 0",
        "medserve-server: MEDSERVE_WORKERS: is 'x', expected a whole number",
    ], "a flag wins over a variable and over the file"


def test_unknown_flag_is_reported() -> None:
    result = ended("--prot", "1")
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr.splitlines()[-1] == "medserve-server: error: unrecognized arguments: --prot 1"


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


@pytest.mark.parametrize("exists", [True, False])
def test_missing_models_are_reported_with_the_folder_and_remedies(exists: bool, tmp_path: Path) -> None:
    folder = tmp_path / "models"
    if exists:
        folder.mkdir()
    result = ended(*FREE_PORTS, "--transport", "grpcio", "--models", "models", folder=str(tmp_path))
    (line,) = result.stderr.splitlines()
    assert result.returncode == 1
    assert line.startswith("medserve-server: --models models: ")
    assert str(folder) in line
    for way in ("<name>/<version>/model.onnx", "models/ in a checkout", "medserve-train fit"):
        assert way in line


@pytest.mark.parametrize(("transport", "workers"), [("grpcio", "1"), ("grpcio", "2"), ("envoy", "2")])
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
