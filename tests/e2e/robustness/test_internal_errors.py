"""Errors of server components outside of model runs: every call is answered, and the server keeps running."""

import re
import signal
from collections import Counter
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2
from grpc_health.v1.health_pb2_grpc import HealthStub

from patches.faulty import PRIVATE
from samples import onnx_models
from servers.model_folder import OK, POLL, Caller, ModelFolder, request
from servers.server_process import ServerProcess, running_server
from waiting import PATIENCE, wait_until

INTERNAL = grpc.StatusCode.INTERNAL
DEADLINE_EXCEEDED = grpc.StatusCode.DEADLINE_EXCEEDED
TIMES = 3


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    onnx_models.save(folder, "a", onnx_models.add(1))
    onnx_models.save(folder, "b", onnx_models.add(2))
    onnx_models.save(folder, "loop", onnx_models.loop())
    onnx_models.save(folder, "slow", onnx_models.slow(400))
    return folder


def counted(server: ServerProcess, where: str) -> float:
    name = f'medserve_internal_errors_total{{where="{where}"}}'
    return sum(float(line.rsplit(" ", 1)[1]) for line in server.metrics().splitlines() if line.startswith(name))


def check_log(log: Path, where: str) -> None:
    text = log.read_text()
    assert re.search(rf"{where}( of \S+)? failed; this is a bug", text)
    assert "ZeroDivisionError" in text
    assert PRIVATE not in text


@pytest.mark.parametrize(
    ("fault", "times", "where"),
    [
        ("metrics", 3, "metrics"),
        ("delivery", 1, "delivery"),
        ("batch", 3, "batch"),
        ("withdrawn", 1, "batch"),
        ("plan", 3, "call"),
        ("observer", 3, "observer"),
    ],
)
def test_every_call_is_answered_if_a_component_fails(
    models: Path, transport: str, tmp_path: Path, fault: str, times: int, where: str
) -> None:
    log = tmp_path / "log"
    flags = ("--models", str(models), "--transport", transport, "--access-log", "--threads", "2")
    with (
        running_server(*flags, patch=("faulty", fault, str(times)), log=log) as server,
        grpc.insecure_channel(server.target, [("grpc.enable_retries", 0)]) as channel,
    ):
        caller = Caller(channel)
        codes: Counter[grpc.StatusCode] = Counter()
        for _ in range(10):
            calls = [
                caller.stub.ModelInfer.future(request(name, *rows), timeout=PATIENCE)
                for name in ("a", "b")
                for rows in ([1.0], [2.0, 3.0], [4.0] * 150)
            ]
            codes.update(call.code() for call in calls)
        assert set(codes) <= {OK, INTERNAL}, "no call hangs"
        assert codes[OK] > 0
        for _ in range(20):
            assert caller.number("a") == 1
            assert caller.number("b") == 2
        assert server.sample('medserve_inflight_requests{model="a"') == 0
        assert server.sample('medserve_pending_requests{model="a"') == 0
        assert counted(server, where) >= 1
        check_log(log, where)


def test_hanging_runs_are_detected_after_a_failed_check(models: Path, transport: str, tmp_path: Path) -> None:
    log = tmp_path / "log"
    flags = ("--models", str(models), "--transport", transport, "--max-run-seconds", "1")
    with (
        running_server(*flags, patch=("faulty", "watchdog", str(TIMES)), log=log) as server,
        grpc.insecure_channel(server.target) as channel,
    ):
        call = Caller(channel).stub.ModelInfer.future(request("loop", 1e12), timeout=PATIENCE)
        assert call.code() is DEADLINE_EXCEEDED
        assert server.sample('medserve_overdue_runs_total{model="loop"') == 1
        assert counted(server, "watchdog") == TIMES
        check_log(log, "watchdog")


def test_health_is_updated_after_a_failed_update(models: Path, transport: str, tmp_path: Path) -> None:
    """A server that cannot update its health still answers accepted calls before it exits."""
    log = tmp_path / "log"
    flags = ("--models", str(models), "--transport", transport)
    with (
        running_server(*flags, patch=("faulty", "health", "1000000"), log=log) as server,
        grpc.insecure_channel(server.target) as channel,
    ):
        wait_until(lambda: counted(server, "health") > 1, "health to fail")
        check = HealthStub(channel).Check(health_pb2.HealthCheckRequest())  # type: ignore[attr-defined]
        assert check.status == health_pb2.HealthCheckResponse.SERVING
        call = Caller(channel).stub.ModelInfer.future(request("slow", 1.0), timeout=PATIENCE)
        wait_until(lambda: server.sample('medserve_inflight_requests{model="slow"') == 1, "the run to begin")
        server.process.send_signal(signal.SIGTERM)
        assert call.code() is OK
        assert server.process.wait(PATIENCE) == 0
    check_log(log, "health")


def test_failed_health_watch_ends_with_an_error(models: Path, transport: str, tmp_path: Path) -> None:
    log = tmp_path / "log"
    flags = ("--models", str(models), "--transport", transport)
    with (
        running_server(*flags, patch=("faulty", "watch", "1"), log=log) as server,
        grpc.insecure_channel(server.target) as channel,
    ):
        watch = HealthStub(channel).Watch  # type: ignore[attr-defined]
        failed = watch(health_pb2.HealthCheckRequest(), timeout=PATIENCE)
        assert failed.code() is INTERNAL
        watcher = watch(health_pb2.HealthCheckRequest(), timeout=PATIENCE)
        assert next(watcher).status == health_pb2.HealthCheckResponse.SERVING
        watcher.cancel()
        assert counted(server, "health") == 1
        check_log(log, "health")


@pytest.mark.parametrize("fault", ["repository", "poll", "retire"])
def test_models_are_updated_after_a_failed_scan(transport: str, tmp_path: Path, fault: str) -> None:
    log = tmp_path / "log"
    folder = ModelFolder(tmp_path / "models")
    folder.publish("a", 1, onnx_models.add(1))
    flags = ("--models", str(folder.folder), "--transport", transport, "--version-policy", "latest:1", *POLL)
    with (
        running_server(*flags, patch=("faulty", fault, "1"), log=log) as server,
        grpc.insecure_channel(server.target) as channel,
    ):
        caller = Caller(channel)
        folder.publish("a", 2, onnx_models.add(2))
        caller.wait_for_number("a", 2)
        folder.publish("a", 3, onnx_models.add(3))
        caller.wait_for_number("a", 3)
        wait_until(lambda: 'version="1"' not in server.metrics(), "the first version to be unloaded")
        wait_until(lambda: 'version="2"' not in server.metrics(), "the second version to be unloaded")
        assert counted(server, "closing a model" if fault == "retire" else "repository") == 1
