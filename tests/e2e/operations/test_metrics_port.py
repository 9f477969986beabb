"""Probes on the metrics port report the state of the server, regardless of client traffic."""

import os
import signal
import socket
import subprocess
from contextlib import ExitStack
from pathlib import Path
from urllib.error import URLError
from urllib.parse import urlsplit

import grpc
import pytest

from medserve_server.http.port import MAX_CONNECTIONS
from processes import started
from samples import onnx_models
from servers.held_server import HeldServer
from servers.model_folder import OK, Caller, request
from servers.server_process import (
    REPOSITORY,
    ServerProcess,
    command,
    environment,
    free_port,
    page,
    refusal,
    running_server,
)
from waiting import PATIENCE, wait_until


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    onnx_models.save(folder, "a", onnx_models.add(1))
    return folder


def address(server: ServerProcess) -> tuple[str, int]:
    parts = urlsplit(server.metrics_url)
    assert parts.hostname is not None
    assert parts.port is not None
    return parts.hostname, parts.port


def test_readiness_during_startup_serving_and_shutdown(models: Path, transport: str, tmp_path: Path) -> None:
    file = tmp_path / "held"
    file.touch()  # delays warm-up until it is removed
    ports = (free_port(), free_port())
    target, url = f"127.0.0.1:{ports[0]}", f"http://127.0.0.1:{ports[1]}/"
    flags = ("--models", str(models), "--transport", transport, "--grace", "3600")
    numbers = ("--port", str(ports[0]), "--metrics-port", str(ports[1]))

    def get(path: str) -> tuple[int, str]:
        try:
            return page(url + path)
        except URLError:
            return 0, ""

    with (
        started(
            command(*flags, *numbers),
            cwd=REPOSITORY,
            env=environment(("held", str(file))),
            stdout=subprocess.DEVNULL,
            text=True,
        ) as process,
        grpc.insecure_channel(target) as channel,
    ):
        wait_until(lambda: get("livez") == (200, "ok\n"), "the process to be live")
        assert get("readyz") == (503, "loading models\n")
        file.unlink()
        wait_until(lambda: get("readyz") == (200, "ok\n"), "the models to be loaded")
        server = ServerProcess(process, target, f"{url}metrics", "")
        held = HeldServer(server, file)
        with held.hold():
            call = Caller(channel).stub.ModelInfer.future(request("a", 1.0), timeout=PATIENCE)
            held.wait_for_calls(1)
            process.send_signal(signal.SIGTERM)
            wait_until(lambda: get("readyz") == (503, "stopping\n"), "the server to drain")
            assert get("livez") == (200, "ok\n")
        assert call.code() is OK
        assert process.wait(PATIENCE) == 0


def test_server_is_ready_while_any_worker_is_ready(models: Path) -> None:
    with running_server("--models", str(models), "--workers", "2", "--drain-delay", "2") as server:
        assert server.page("/readyz") == (200, "ok\n")
        for pid in server.workers():
            os.kill(pid, signal.SIGKILL)
        wait_until(lambda: server.page("/readyz") == (503, "loading models\n"), "both workers to exit")
        wait_until(lambda: server.page("/readyz") == (200, "ok\n"), "new workers to start")
        server.process.send_signal(signal.SIGTERM)
        wait_until(lambda: server.page("/readyz") == (503, "stopping\n"), "the server to stop")
        assert server.process.wait(PATIENCE) == 0


def test_1000_connections_use_a_bounded_number_of_descriptors(models: Path, tmp_path: Path) -> None:
    log = tmp_path / "log"
    with running_server("--models", str(models), "--transport", "grpcio", log=log) as server:
        files = Path(f"/proc/{server.process.pid}/fd")
        before = len(list(files.iterdir()))
        with ExitStack() as crowd:
            for _ in range(1000):
                crowd.enter_context(socket.create_connection(address(server), timeout=PATIENCE))
                # asyncio accepts several connections per loop iteration before it closes those beyond the limit.
                assert len(os.listdir(files)) <= before + 4 * MAX_CONNECTIONS  # noqa: PTH208
        wait_until(lambda: len(os.listdir(files)) <= before + 1, "the connections to be closed")  # noqa: PTH208
        assert server.page("/livez") == (200, "ok\n")
    assert "WARNING" not in log.read_text()


def test_port_in_use_is_reported_with_its_flag(models: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = str(other.getsockname()[1])
        flags = ("--models", str(models), "--transport", "grpcio", "--metrics-port", port)
        for workers in ("1", "2"):
            get = refusal(*flags, "--workers", workers)
            reason = f"cannot listen on 127.0.0.1:{port}; if it is in use, choose another port with --metrics-port"
            assert get == f"medserve-server: {reason}\n"


def test_ipv6_address(models: Path) -> None:
    with running_server("--models", str(models), "--host", "::1") as server:
        assert server.target.startswith("[::1]:")
        assert server.page("/readyz") == (200, "ok\n")
        with grpc.insecure_channel(server.target) as channel:
            assert Caller(channel).number("a") == 1
