"""Behavior specific to Envoy: its process and files, and assumptions of the adapter about pyvoy."""

import asyncio
import os
import re
import signal
import stat
import time
from pathlib import Path

import grpc
import numpy as np
import pytest

from medserve_proto.inference import grpc_service_pb2 as pb
from medserve_proto.inference.grpc_service_pb2_grpc import GRPCInferenceServiceStub
from processes import started
from samples import onnx_models
from servers.held_server import held_server
from servers.model_folder import OK, Caller, request
from servers.server_process import REPOSITORY, command, environment, running_server
from waiting import PATIENCE, wait_until

ENVOY = ("--transport", "envoy")
SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 - only listed
NO_RETRIES = [("grpc.enable_retries", 0)]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    onnx_models.save(folder, "a", onnx_models.add(1))
    onnx_models.save(folder, "bytes", onnx_models.identity("UINT8", ["batch", "bytes"]))
    return folder


@pytest.fixture
def temporary(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The parent of the servers' private folders; its path is short enough for a socket."""
    folder = tmp_path_factory.mktemp("t")
    monkeypatch.setenv("TMPDIR", str(folder))
    return folder


@pytest.fixture
def flags(models: Path) -> tuple[str, ...]:
    return (*ENVOY, "--models", str(models))


def is_alive(pid: int) -> bool:
    try:
        return "State:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False


def is_envoy(pid: int) -> bool:
    """Returns whether a process is Envoy itself, not a program that it runs to locate libpython."""
    try:
        return b"--config-path" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False


def of_size(size: int, seed: int) -> pb.ModelInferRequest:
    content = np.random.default_rng(seed).bytes(size)
    tensor = pb.ModelInferRequest.InferInputTensor(name="x", datatype="UINT8", shape=[1, size])
    return pb.ModelInferRequest(model_name="bytes", id=str(seed), inputs=[tensor], raw_input_contents=[content])


async def test_responses_sent_immediately_arrive_complete(flags: tuple[str, ...], tmp_path: Path) -> None:
    """pyvoy does not document this; transport/grpc_response.py relies on it."""
    log = tmp_path / "log"
    sizes = [1, 100, 16_000, 60_000, 65_000, 65_536, 70_000]
    with running_server(*flags, log=log) as server:
        leaving = grpc.aio.insecure_channel(server.target, [("grpc.use_local_subchannel_pool", 1)])
        async with grpc.aio.insecure_channel(server.target) as channel:
            stub, cancelling_stub = GRPCInferenceServiceStub(channel), GRPCInferenceServiceStub(leaving)
            left = [cancelling_stub.ModelInfer(of_size(60_000, seed)) for seed in range(100)]

            async def ask(seed: int) -> None:
                sent = of_size(sizes[seed % len(sizes)], seed)
                response = await stub.ModelInfer(sent, timeout=PATIENCE)
                assert response.id == sent.id
                assert response.raw_output_contents == sent.raw_input_contents

            asking = [asyncio.ensure_future(ask(seed)) for seed in range(700)]
            await asking[0]
            await leaving.close(None)
            await asyncio.gather(*left, return_exceptions=True)
            await asyncio.gather(*asking)
    assert not re.search("never awaited|never retrieved|Traceback|this is a bug", log.read_text())


def test_calls_that_arrive_during_draining_are_answered(flags: tuple[str, ...], tmp_path: Path) -> None:
    with (
        held_server(tmp_path / "held", *flags, "--grace", "3600") as held,
        grpc.insecure_channel(held.server.target, NO_RETRIES) as channel,
    ):
        caller = Caller(channel)
        with held.hold():
            first = caller.stub.ModelInfer.future(request("a", 1.0))
            held.wait_for_calls(1)
            held.server.process.send_signal(signal.SIGTERM)
            later = caller.stub.ModelInfer.future(request("a", 1.0))
            held.wait_for_calls(2)
        assert (first.code(), later.code()) == (OK, OK)
        assert held.server.process.wait(PATIENCE) == 0


def test_ctrl_c_drains(flags: tuple[str, ...], tmp_path: Path) -> None:
    """A terminal sends SIGINT to all processes in the foreground; Envoy must not be one of them."""
    log, holds = tmp_path / "log", tmp_path / "held"
    with (
        held_server(holds, *flags, "--grace", "3600", log=log, own_group=True) as held,
        grpc.insecure_channel(held.server.target, NO_RETRIES) as channel,
    ):
        with held.hold():
            call = Caller(channel).stub.ModelInfer.future(request("a", 1.0))
            held.wait_for_calls(1)
            os.killpg(held.server.process.pid, signal.SIGINT)
            wait_until(lambda: "NOT_SERVING" in log.read_text(), "the drain to begin")
        assert call.code() is OK
        assert held.server.process.wait(PATIENCE) == 0


def test_only_the_user_has_access_to_the_files(flags: tuple[str, ...], temporary: Path) -> None:
    before = set(SHARED_MEMORY.iterdir())
    with running_server(*flags):
        (folder,) = temporary.glob("medserve-*")
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        assert stat.S_IMODE((folder / "0.sock").stat().st_mode) == 0o600
        assert not [path for path in set(SHARED_MEMORY.iterdir()) - before if "envoy" in path.name]
    assert not list(temporary.iterdir())


@pytest.mark.parametrize("workers", [1, 2])
def test_killed_supervisor_leaves_no_processes_or_files(flags: tuple[str, ...], temporary: Path, workers: int) -> None:
    with running_server(*flags, "--workers", str(workers), status=-signal.SIGKILL) as server:
        orphans = server.workers()
        assert len(orphans) == workers
        server.process.kill()
        wait_until(lambda: not any(map(is_alive, orphans)), "Envoy to end")
    wait_until(lambda: not list(temporary.iterdir()), "the files to be removed")


def test_startup_removes_files_of_killed_servers(flags: tuple[str, ...], temporary: Path) -> None:
    with running_server(*flags) as lives:
        (kept,) = temporary.iterdir()
        with running_server(*flags, status=-signal.SIGKILL) as server:
            (left,) = set(temporary.iterdir()) - {kept}
            (envoy,) = server.workers()
            os.kill(server.process.pid, signal.SIGSTOP)
            os.kill(envoy, signal.SIGKILL)
            server.process.kill()
        assert left.exists()
        (temporary / "medserve-of-someone").mkdir()
        with running_server(*flags):
            assert not left.exists()
            assert (kept / "lock").exists()
            assert (temporary / "medserve-of-someone").exists()
        with grpc.insecure_channel(lives.target) as channel:
            assert Caller(channel).number("a") == 1


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_terminated_envoy_is_replaced(flags: tuple[str, ...], tmp_path: Path, number: signal.Signals) -> None:
    log = tmp_path / "log"
    with running_server(*flags, log=log) as server, grpc.insecure_channel(server.target) as channel:
        (envoy,) = server.workers()
        os.kill(envoy, number)
        wait_until(lambda: server.total("medserve_workers_replaced_total") == 1, "another Envoy to start")
        caller = Caller(channel)
        wait_until(lambda: caller.code("a") is OK, "a response")
    assert f"worker 0 (process {envoy}) was killed by {number.name}; starting a replacement" in log.read_text()
    assert "this is a bug" not in log.read_text()


def test_repeatedly_terminating_envoy_ends_the_server_with_the_reason(flags: tuple[str, ...], tmp_path: Path) -> None:
    log = tmp_path / "log"
    with running_server(*flags, log=log, status=1) as server:
        killed: set[int] = set()
        while server.process.poll() is None:
            for pid in filter(is_envoy, server.workers() - killed):
                os.kill(pid, signal.SIGKILL)
                killed.add(pid)
    assert len(killed) == 5
    last = log.read_text().splitlines()[-1]
    assert last.startswith("medserve-server: ")
    assert "was killed by SIGKILL" in last


STAGES = ["folder", "config", "socket", "model"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
@pytest.mark.parametrize("stage", STAGES)
def test_server_stopped_during_startup_leaves_no_processes_or_files(
    flags: tuple[str, ...], temporary: Path, tmp_path: Path, stage: str, number: signal.Signals
) -> None:
    log = tmp_path / "log"

    def reached() -> bool:
        names = {"folder": "medserve-*", "config": "medserve-*/0.json", "socket": "medserve-*/0.sock"}
        if stage == "model":
            return "is now served" in log.read_text()
        return bool(list(temporary.glob(names[stage])))

    with (
        log.open("w") as errors,
        started(command(*flags), cwd=REPOSITORY, env=environment(), stdout=errors, stderr=errors) as process,
    ):
        end = time.monotonic() + PATIENCE
        while not reached():
            assert process.poll() is None
            assert time.monotonic() < end
            time.sleep(0.001)  # a short pause, so that the process is stopped in this stage
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        process.send_signal(number)
        process.wait(PATIENCE)
        wait_until(lambda: not any(is_alive(int(child)) for child in children), "Envoy to end")
    assert process.returncode in {0, -number}
    if number == signal.SIGTERM:
        assert not list(temporary.iterdir())
    assert "Traceback" not in log.read_text()


def test_forged_client_headers_are_ignored(flags: tuple[str, ...], tmp_path: Path) -> None:
    log = tmp_path / "log"
    forged = (
        ("x-forwarded-for", "203.0.113.9"),
        ("x-forwarded-client-cert", 'Subject="CN=admin"'),
        ("x-request-id", "forged-request"),
    )
    with (
        running_server(*flags, "--access-log", "--max-client-calls", "1", "--log-level", "debug", log=log) as server,
        grpc.insecure_channel(server.target, NO_RETRIES) as channel,
    ):
        stub = GRPCInferenceServiceStub(channel)
        assert stub.ModelInfer(request("a", 1.0), timeout=PATIENCE, metadata=forged).outputs
    for word in ("203.0.113.9", "CN=admin", "forged-request"):
        assert word not in log.read_text()


def test_large_message_arrives_while_the_event_loop_is_blocked(flags: tuple[str, ...], tmp_path: Path) -> None:
    """Envoy applies flow control meanwhile."""
    options = [("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1)]
    with (
        running_server(*flags, "--max-message-mib", "64", patch=("blocking_loop", str(tmp_path / "block"))) as server,
        grpc.insecure_channel(server.target, options) as channel,
    ):
        stub = GRPCInferenceServiceStub(channel)
        sent = of_size(60 * 1024 * 1024, 1)
        for _ in range(2):
            (tmp_path / "block").touch()
            response = stub.ModelInfer(sent, timeout=PATIENCE)
            assert response.raw_output_contents[0] == sent.raw_input_contents[0]
            assert not (tmp_path / "block").exists(), "the loop was blocked"


def test_every_message_of_a_long_stream_is_answered(flags: tuple[str, ...]) -> None:
    """gRPC's client updates its window for each response, and many responses arrive in one frame."""
    messages = 20_000
    with running_server(*flags) as server, grpc.insecure_channel(server.target) as channel:
        responses = GRPCInferenceServiceStub(channel).ModelStreamInfer(request("a", 1.0) for _ in range(messages))
        assert sum(1 for _ in responses) == messages
