"""Errors of server components outside of model runs: every call is answered, and the server keeps running."""

import re
import signal
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2
from grpc_health.v1.health_pb2_grpc import HealthStub

from patches.faulty import FAULTS, PRIVATE
from samples import onnx_models
from servers.model_folder import OK, POLL, Caller, ModelFolder, request
from servers.server_process import ServerProcess, running_server
from waiting import PATIENCE, wait_until

INTERNAL = grpc.StatusCode.INTERNAL
DEADLINE_EXCEEDED = grpc.StatusCode.DEADLINE_EXCEEDED


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


def check_log(text: str, where: str) -> None:
    assert re.search(rf"{where}( of \S+)? failed; this is a bug", text)
    assert "ZeroDivisionError" in text
    assert PRIVATE not in text


@dataclass(frozen=True)
class Faulty:
    """A server whose components fail once `begin` names them."""

    server: ServerProcess
    folder: Path
    log: Path

    def begin(self, fault: str) -> None:
        (self.folder / fault).touch()


@pytest.fixture(scope="module")
def faulty(models: Path, transport: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Faulty]:
    folder = tmp_path_factory.mktemp("faults")
    log = folder / "log"
    flags = ("--models", str(models), "--transport", transport, "--access-log", "--threads", "2")
    with running_server(*flags, patch=("faulty", str(folder)), log=log) as server:
        yield Faulty(server, folder, log)


@pytest.mark.parametrize(
    ("fault", "where"),
    [
        ("metrics", "metrics"),
        ("delivery", "delivery"),
        ("batch", "batch"),
        ("withdrawn", "batch"),
        ("plan", "call"),
        ("observer", "observer"),
    ],
)
def test_every_call_is_answered_if_a_component_fails(faulty: Faulty, fault: str, where: str) -> None:
    server, before, lines = faulty.server, counted(faulty.server, where), len(faulty.log.read_text())
    with grpc.insecure_channel(server.target, [("grpc.enable_retries", 0)]) as channel:
        caller = Caller(channel)
        codes: Counter[grpc.StatusCode] = Counter()
        faulty.begin(fault)
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
        assert counted(server, where) > before
        check_log(faulty.log.read_text()[lines:], where)


def test_failed_health_watch_ends_with_an_error(faulty: Faulty) -> None:
    before, lines = counted(faulty.server, "health"), len(faulty.log.read_text())
    with grpc.insecure_channel(faulty.server.target) as channel:
        watch = HealthStub(channel).Watch  # type: ignore[attr-defined]
        faulty.begin("watch")
        failed = watch(health_pb2.HealthCheckRequest(), timeout=PATIENCE)
        assert failed.code() is INTERNAL
        watcher = watch(health_pb2.HealthCheckRequest(), timeout=PATIENCE)
        assert next(watcher).status == health_pb2.HealthCheckResponse.SERVING
        watcher.cancel()
    assert counted(faulty.server, "health") == before + 1
    check_log(faulty.log.read_text()[lines:], "health")


def test_hanging_runs_are_detected_after_a_failed_check(models: Path, transport: str, tmp_path: Path) -> None:
    log = tmp_path / "log"
    (tmp_path / "watchdog").touch()
    flags = ("--models", str(models), "--transport", transport, "--max-run-seconds", "1")
    with (
        running_server(*flags, patch=("faulty", str(tmp_path)), log=log) as server,
        grpc.insecure_channel(server.target) as channel,
    ):
        call = Caller(channel).stub.ModelInfer.future(request("loop", 1e12), timeout=PATIENCE)
        assert call.code() is DEADLINE_EXCEEDED
        assert server.sample('medserve_overdue_runs_total{model="loop"') == 1
        assert counted(server, "watchdog") == FAULTS["watchdog"]
        check_log(log.read_text(), "watchdog")


def test_health_is_updated_after_a_failed_update(models: Path, transport: str, tmp_path: Path) -> None:
    """A server that cannot update its health still answers accepted calls before it exits."""
    log = tmp_path / "log"
    (tmp_path / "health").touch()
    flags = ("--models", str(models), "--transport", transport)
    with (
        running_server(*flags, patch=("faulty", str(tmp_path)), log=log) as server,
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
    check_log(log.read_text(), "health")


def test_models_are_updated_after_a_failed_scan(transport: str, tmp_path: Path) -> None:
    folder = ModelFolder(tmp_path / "models")
    folder.publish("a", 1, onnx_models.add(1))
    flags = ("--models", str(folder.folder), "--transport", transport, "--version-policy", "latest:1", *POLL)
    (tmp_path / "poll").touch()  # called once, at startup
    newest = 1
    with (
        running_server(*flags, patch=("faulty", str(tmp_path))) as server,
        grpc.insecure_channel(server.target) as channel,
    ):
        caller = Caller(channel)
        for fault, errors in (("poll", (1, 0)), ("repository", (2, 0)), ("retire", (2, 1))):
            (tmp_path / fault).touch()
            for _ in range(2):
                newest += 1
                folder.publish("a", newest, onnx_models.add(newest))
                caller.wait_for_number("a", newest)
                replaced = f'version="{newest - 1}"'
                wait_until(lambda: replaced not in server.metrics(), "the replaced version to be unloaded")  # noqa: B023
            assert (counted(server, "repository"), counted(server, "closing a model")) == errors
