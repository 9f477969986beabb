"""Hanging model runs: effects on their callers, queued requests, other models, and shutdown."""

import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2
from grpc_health.v1.health_pb2_grpc import HealthStub

from medserve_proto.inference import grpc_service_pb2 as pb
from patches.hanging import HANGS
from samples import onnx_models
from servers.model_folder import EXPLICIT, OK, POLL, Caller, ModelFolder, request
from servers.server_process import ServerProcess, running_server
from waiting import PATIENCE, wait_until

FOREVER = 1e12  # rounds
DEADLINE_EXCEEDED = grpc.StatusCode.DEADLINE_EXCEEDED
UNAVAILABLE = grpc.StatusCode.UNAVAILABLE


@dataclass(frozen=True)
class Hanging:
    """A server whose models a, b and loop add 1, 2 and 0; it hangs as long as `file` exists."""

    server: ServerProcess
    caller: Caller
    channel: grpc.Channel
    file: Path
    log: Path

    def serving(self) -> bool:
        check = HealthStub(self.channel).Check(health_pb2.HealthCheckRequest())  # type: ignore[attr-defined]
        return bool(check.status == health_pb2.HealthCheckResponse.SERVING)

    def ready(self, name: str) -> bool:
        return self.caller.stub.ModelReady(pb.ModelReadyRequest(name=name)).ready

    def ask(self, name: str, *rows: float) -> Any:  # noqa: ANN401 - grpc's types leave out what a call is
        return self.caller.stub.ModelInfer.future(request(name, *rows), timeout=PATIENCE)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("hanging")
    for name, model in (("a", onnx_models.add(1)), ("b", onnx_models.add(2)), ("loop", onnx_models.loop())):
        onnx_models.save(folder, name, model)
    onnx_models.save(folder, "failing", onnx_models.failing())
    return folder


@pytest.fixture(scope="module")
def flags(models: Path, transport: str) -> tuple[str, ...]:
    return ("--models", str(models), "--transport", transport, "--max-run-seconds", "2")


@pytest.fixture(scope="module")
def started(flags: tuple[str, ...], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hanging]:
    folder = tmp_path_factory.mktemp("hanging")
    file, log = folder / "hang", folder / "log"
    with (
        running_server(*flags, patch=("hanging", str(file)), log=log) as server,
        grpc.insecure_channel(server.target, [("grpc.enable_retries", 0)]) as channel,
    ):
        yield Hanging(server, Caller(channel), channel, file, log)


@pytest.fixture
def hanging(started: Hanging) -> Iterator[Hanging]:
    """A server of several tests, which does not hang before and after each."""
    assert started.serving()
    yield started
    started.file.unlink(missing_ok=True)
    wait_until(started.serving, "the models to recover")


def test_run_that_exceeds_the_limit_is_terminated(hanging: Hanging) -> None:
    long = hanging.ask("loop", FOREVER)
    behind = hanging.ask("loop", 3)
    while not long.done():
        assert hanging.caller.number("b") == 2
    assert long.code() is DEADLINE_EXCEEDED
    assert behind.code() in {OK, DEADLINE_EXCEEDED}, "it may have been in the same batch"
    assert hanging.caller.number("loop") == 0
    assert hanging.server.sample('medserve_overdue_runs_total{model="loop"') == 1
    assert "a run exceeded --max-run-seconds 2" in hanging.log.read_text()


def test_hanging_model_is_suspended_until_it_recovers(hanging: Hanging) -> None:
    assert hanging.serving()
    hanging.file.touch()
    stuck = hanging.ask("a", HANGS)
    wait_until(lambda: hanging.server.sample('medserve_inflight_requests{model="a"') == 1, "the run to begin")
    behind = [hanging.ask("a", x) for x in range(20)]
    while not all(call.done() for call in (stuck, *behind)):
        assert hanging.caller.number("b") == 2
    assert stuck.code() is DEADLINE_EXCEEDED
    assert {call.code() for call in behind} <= {UNAVAILABLE, DEADLINE_EXCEEDED}, "some may have been in the same batch"
    for _ in range(20):
        assert hanging.caller.code("a") is UNAVAILABLE
        assert hanging.caller.number("b") == 2
    wait_until(lambda: not hanging.serving(), "health to report the hanging model")
    # A supervisor polls its workers once a second.
    wait_until(lambda: hanging.server.page("/readyz") == (503, "model a hangs\n"), "the metrics port to report it")
    assert hanging.server.page("/livez") == (200, "ok\n")
    assert not hanging.ready("a")
    assert hanging.ready("b")
    assert not hanging.caller.stub.ServerReady(pb.ServerReadyRequest()).ready
    assert hanging.caller.index()["a", "1"] == ("UNAVAILABLE", "a run of the model hangs")
    assert hanging.server.sample('medserve_model_ready{model="a"') == 0
    assert hanging.server.sample('medserve_inflight_requests{model="a"') == 0
    assert "a/1 hangs" in hanging.log.read_text()

    hanging.file.unlink()
    wait_until(hanging.serving, "health to report that the model has recovered")
    wait_until(lambda: hanging.server.page("/readyz") == (200, "ok\n"), "the metrics port to report it")
    assert hanging.ready("a")
    assert hanging.caller.number("a") == 1
    assert hanging.server.sample('medserve_model_ready{model="a"') == 1
    assert hanging.server.sample('medserve_inflight_requests{model="a"') == 0


def test_large_request_fails_as_a_whole_if_a_batch_hangs(hanging: Hanging) -> None:
    """A request of several batches, one of which hangs, has a single outcome."""
    hanging.file.touch()
    rows = [0.0] * 300
    rows[100] = HANGS
    assert hanging.ask("a", *rows).code() in {
        DEADLINE_EXCEEDED,
        UNAVAILABLE,
    }
    hanging.file.unlink()
    wait_until(lambda: hanging.caller.code("a") is OK, "the model to recover")


def test_failing_model_does_not_affect_other_models(hanging: Hanging) -> None:
    for _ in range(50):
        assert hanging.caller.code("failing") is grpc.StatusCode.INTERNAL
        assert hanging.caller.number("b") == 2
    assert hanging.serving()


@pytest.mark.parametrize("suspended", [True, False])
def test_server_exits_although_a_run_hangs(flags: tuple[str, ...], tmp_path: Path, suspended: bool) -> None:
    file, log = tmp_path / "hang", tmp_path / "log"
    file.touch()
    patience = () if suspended else ("--max-run-seconds", "3600")
    with (
        running_server(*flags, *patience, "--grace", "0.5", patch=("hanging", str(file)), log=log, status=1) as server,
        grpc.insecure_channel(server.target) as channel,
    ):
        call = Hanging(server, Caller(channel), channel, file, log).ask("a", HANGS)
        wait_until(lambda: server.sample('medserve_inflight_requests{model="a"') == 1, "the run to begin")
        if suspended:
            assert call.code() is DEADLINE_EXCEEDED
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(PATIENCE) == 1
    assert "exiting without waiting for it" in log.read_text()


def test_model_that_hangs_in_warm_up_does_not_block_others(tmp_path: Path, transport: str, models: Path) -> None:
    folder = ModelFolder(tmp_path / "models")
    folder.publish("b", 1, (models / "b/1/model.onnx").read_bytes())
    flags = ("--models", str(folder.folder), "--transport", transport, "--max-run-seconds", "2", *POLL)
    with running_server(*flags) as server, grpc.insecure_channel(server.target) as channel:
        caller = Caller(channel)
        folder.publish("a", 1, onnx_models.loop(int(FOREVER)))
        folder.publish("c", 1, onnx_models.add(3))
        caller.wait_for_number("c", 3)
        assert caller.number("b") == 2


def test_hanging_model_can_be_unloaded(models: Path, transport: str, tmp_path: Path) -> None:
    """Health recovers once no served model hangs."""
    file = tmp_path / "hang"
    flags = ("--models", str(models), "--transport", transport, "--max-run-seconds", "2")
    names = ("--load-model", "a", "--load-model", "b")
    with (
        running_server(*flags, *EXPLICIT, *names, patch=("hanging", str(file))) as server,
        grpc.insecure_channel(server.target, [("grpc.enable_retries", 0)]) as channel,
    ):
        hanging = Hanging(server, Caller(channel), channel, file, file)
        file.touch()
        assert hanging.ask("a", HANGS).code() is DEADLINE_EXCEEDED
        wait_until(lambda: not hanging.serving(), "health to report the hanging model")
        hanging.caller.stub.RepositoryModelUnload(pb.RepositoryModelUnloadRequest(model_name="a"))
        wait_until(hanging.serving, "health to report that the model is unloaded")
        hanging.caller.stub.RepositoryModelLoad(pb.RepositoryModelLoadRequest(model_name="a"))
        assert hanging.caller.number("a") == 1
        assert hanging.serving()
        file.unlink()
