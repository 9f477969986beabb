"""Output of a server on a terminal, in a pipe and as JSON, without lines from other sources."""

import json
import os
import pty
import re
import signal
import socket
import subprocess
from pathlib import Path
from typing import Any

import pytest

from processes import started
from samples import onnx_models
from samples.certificates import Authority
from servers.server_process import REPOSITORY, Patch, command, environment, running_server
from waiting import PATIENCE

NAME = "a-model-with-a-name-that-takes-more-than-the-eighty-columns-of-an-old-terminal-for-itself"
LINE = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} (INFO|WARNING|ERROR) medserve_server\.")
HELLO = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
JSON, AS_JSON = ("--log-format", "json"), {"MEDSERVE_LOG_FORMAT": "json"}
GARBAGE = (b"\x16\x03\x01garbage" * 20, HELLO + b"\xff" * 200, b"", b"GET / HTTP/1.1\r\n\r\n", b"\0" * 1000)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    onnx_models.save(folder, NAME, onnx_models.add(1))
    return folder


def records(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def ended(*flags: str, patch: Patch = (), **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(*flags),
        cwd=REPOSITORY,
        env=environment(patch) | variables,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )


def test_plain_lines_are_never_truncated(models: Path, transport: str) -> None:
    with started(
        command("--models", str(models), "--transport", transport),
        cwd=REPOSITORY,
        env=environment() | {"COLUMNS": "20"},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as process:
        assert process.stdout is not None
        lines = [process.stdout.readline() for _ in range(6)]
        process.terminate()
        assert process.stdout.read() == ""
    model = rf"model    {NAME}/1: \(no manifest: Open Inference Protocol only\); runs on cpu, .*; batches: up to 64\n"
    assert re.fullmatch(model, lines[0])
    assert lines[1] == f"serves   by {transport}\n"
    assert re.fullmatch(r"gRPC     127\.0\.0\.1:\d+\n", lines[2])
    assert re.fullmatch(r"REST     http://127\.0\.0\.1:\d+\n", lines[3])
    assert lines[4] == lines[3].replace("REST ", "web  ").replace("\n", "/\n")
    assert re.fullmatch(r"metrics  http://127\.0\.0\.1:\d+/metrics\n", lines[5])


def test_terminal_shows_a_table_with_full_names(models: Path) -> None:
    ours, theirs = pty.openpty()
    with started(
        command("--models", str(models), "--transport", "grpcio"),
        cwd=REPOSITORY,
        env=environment() | {"COLUMNS": "80", "TERM": "dumb"},
        stdout=theirs,
        stderr=subprocess.DEVNULL,
    ) as process:
        os.close(theirs)
        text = ""
        while "Ctrl-C" not in text:
            text += os.read(ours, 4096).decode(errors="replace")
        process.terminate()
    os.close(ours)
    cells = [line.split("│")[1].strip() for line in text.splitlines() if line.startswith("│")]
    assert "".join(cells) == NAME
    assert "…" not in text


@pytest.mark.parametrize(("transport", "workers"), [("grpcio", "1"), ("envoy", "2")])
def test_json_log_has_records_of_each_model_and_the_addresses(models: Path, transport: str, workers: str) -> None:
    flags = ("--log-format", "json", "--log-level", "error", "--transport", transport, "--workers", workers)
    with started(
        command("--models", str(models), *flags),
        cwd=REPOSITORY,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stderr is not None
        try:
            model, serving = (json.loads(process.stderr.readline()) for _ in range(2))
        finally:
            process.send_signal(signal.SIGTERM)
        assert process.communicate(timeout=PATIENCE) == ("", "")
    fields = {"model": NAME, "version": "1", "title": "", "provider": "cpu", "max_batch_rows": 64}
    assert {key: model[key] for key in fields} == fields
    assert model["message"] == "model"
    assert model["threads"] >= 1
    assert (serving["message"], serving["workers"]) == ("serving", int(workers))
    assert serving["grpc"].startswith("127.0.0.1:")
    assert serving["web"] == f"{serving['rest']}/"
    assert re.fullmatch(r"http://127\.0\.0\.1:\d+/metrics", serving["metrics"])


@pytest.mark.parametrize(
    ("flags", "variables", "text", "status"),
    [
        (("--models", "nowhere", "--transport", "grpcio", *JSON), {}, "--models nowhere: the folder", 1),
        (("--models", "nowhere", "--workers", "2"), AS_JSON, "--models nowhere: the folder", 1),
        (("--port", "many", *JSON), {}, "--port: is 'many', expected a whole number", 1),
        (("--prot", "1"), AS_JSON, "error: unrecognized arguments: --prot 1", 2),
        (("--config", "nowhere.toml"), AS_JSON, "--config nowhere.toml: no such file", 1),
    ],
)
def test_startup_error_is_a_json_record(
    flags: tuple[str, ...], variables: dict[str, str], text: str, status: int
) -> None:
    server = ended(*flags, **variables)
    assert (server.returncode, server.stdout) == (status, "")
    (record,) = records(server.stderr)
    assert record["level"] == "CRITICAL"
    assert record["message"].startswith(text)


@pytest.mark.parametrize("workers", ["1", "2"])
def test_warnings_and_exceptions_are_json_records(models: Path, transport: str, workers: str) -> None:
    flags = ("--models", str(models), "--transport", transport, "--log-format", "json", "--workers", workers)
    server = ended(*flags, patch=("failing",))
    assert (server.returncode, server.stdout) == (1, "")
    logged = records(server.stderr)
    assert any("UserWarning: two\nlines" in record["message"] for record in logged if record["logger"] == "py.warnings")
    exceptions = [record.get("exception", "") for record in logged]
    assert any(text.endswith("LookupError") for text in exceptions)
    assert any(text.endswith("ZeroDivisionError") for text in exceptions)
    assert "rows of a patient" not in server.stderr


@pytest.mark.parametrize("secure", [False, True], ids=["plain", "tls"])
def test_garbage_on_the_port_is_logged_only_by_medserve(
    models: Path, transport: str, secure: bool, tmp_path: Path
) -> None:
    flags: tuple[str, ...] = ("--transport", transport)
    if secure:
        certificate, key = tmp_path / "server.pem", tmp_path / "server.key"
        Authority("a hospital").issue().write(certificate, key)
        flags += ("--tls-certificate", str(certificate), "--tls-key", str(key))
    log = tmp_path / "log"
    with running_server("--models", str(models), *flags, log=log) as server:
        host, port = server.target.split(":")
        for garbage in GARBAGE:
            with socket.create_connection((host, int(port)), timeout=PATIENCE) as connection:
                try:
                    connection.sendall(garbage)
                    connection.shutdown(socket.SHUT_WR)
                    while connection.recv(4096):
                        pass
                except TimeoutError:
                    raise
                except OSError:
                    pass  # the server closed it first
    lines = log.read_text().splitlines()
    assert lines
    assert [line for line in lines if not LINE.match(line)] == []


def test_port_in_use_is_logged_in_one_line(models: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = str(other.getsockname()[1])
        server = ended("--models", str(models), "--transport", "grpcio", "--port", port)
    assert (
        server.stderr
        == f"medserve-server: cannot listen on 127.0.0.1:{port}; if it is in use, choose another port with --port\n"
    )
