"""Startup and shutdown of the real server."""

import signal
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import grpc
import numpy as np
import pytest
from grpc_health.v1 import health_pb2
from grpc_health.v1.health_pb2_grpc import HealthStub

from medserve_proto.inference import grpc_service_pb2 as pb
from medserve_proto.inference.grpc_service_pb2_grpc import GRPCInferenceServiceStub
from servers.held_server import held_server
from servers.server_process import ServerProcess, refusal, running_server
from waiting import PATIENCE, wait_until


@pytest.fixture
def flags(repository: Path, transport: str) -> list[str]:
    return ["--models", str(repository), "--transport", transport]


def request(number: int) -> pb.ModelInferRequest:
    array = np.full((1, 3), number, np.float32)
    tensor = pb.ModelInferRequest.InferInputTensor(name="x", datatype="FP32", shape=[1, 3])
    return pb.ModelInferRequest(
        model_name="identity-fp32", id=str(number), inputs=[tensor], raw_input_contents=[array.tobytes()]
    )


class Load:
    """Calls a server from several threads until it refuses, and checks every response."""

    def __init__(self, target: str, threads: int = 8) -> None:
        self.codes: Counter[grpc.StatusCode] = Counter()
        self.wrong = 0
        self._target = target
        self._lock = threading.Lock()
        self._threads = [threading.Thread(target=self._run, args=(index,)) for index in range(threads)]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def join(self) -> None:
        for thread in self._threads:
            thread.join(timeout=PATIENCE)
            assert not thread.is_alive()

    def _run(self, index: int) -> None:
        options = [("grpc.use_local_subchannel_pool", 1), ("grpc.enable_retries", 0)]
        with grpc.insecure_channel(self._target, options) as channel:
            stub = GRPCInferenceServiceStub(channel)
            number = index
            while True:
                number += 8
                call = stub.ModelInfer.future(request(number), timeout=PATIENCE)
                code = call.code()
                with self._lock:
                    self.codes[code] += 1
                    if code is grpc.StatusCode.OK:
                        response = np.frombuffer(call.result().raw_output_contents[0], np.float32)
                        self.wrong += not (response == number).all()
                if code is not grpc.StatusCode.OK:
                    return
                time.sleep(0.02)  # leaves CPU time to other processes


@pytest.mark.parametrize("workers", [1, 2])
def test_every_accepted_call_is_answered_after_sigterm(flags: list[str], workers: int, tmp_path: Path) -> None:
    """Accepted calls are answered; later ones are refused with UNAVAILABLE, which clients retry."""
    log = tmp_path / "log"
    with running_server(*flags, "--workers", str(workers), "--drain-delay", "4", log=log) as server:
        load = Load(server.target)
        load.start()
        wait_until(lambda: load.codes[grpc.StatusCode.OK] > 100)
        with grpc.insecure_channel(server.target) as channel:
            stub: HealthStub = HealthStub(channel)
            check = health_pb2.HealthCheckRequest()
            server.process.send_signal(signal.SIGTERM)
            wait_until(
                lambda: stub.Check(check).status == health_pb2.HealthCheckResponse.NOT_SERVING,  # type: ignore[attr-defined]
                "health to report NOT_SERVING",
            )
            # Calls are still accepted during the drain delay.
            assert GRPCInferenceServiceStub(channel).ModelInfer(request(1)).raw_output_contents
        load.join()
        assert server.process.wait(PATIENCE) == 0
    assert load.wrong == 0
    assert set(load.codes) == {grpc.StatusCode.OK, grpc.StatusCode.UNAVAILABLE}
    assert log.read_text().count("all calls were answered") == workers


def test_shutdown_waits_for_slow_calls(flags: list[str], tmp_path: Path) -> None:
    with (
        held_server(tmp_path / "held", *flags, "--grace", "3600") as held,
        grpc.insecure_channel(held.server.target) as channel,
    ):
        with held.hold():
            call = GRPCInferenceServiceStub(channel).ModelInfer.future(request(1))
            held.wait_for_calls(1)
            held.server.process.send_signal(signal.SIGTERM)
            with pytest.raises(subprocess.TimeoutExpired):
                held.server.process.wait(1)
        assert call.code() is grpc.StatusCode.OK
        assert held.server.process.wait(PATIENCE) == 0


def test_idle_streams_and_health_watchers_do_not_delay_shutdown(flags: list[str]) -> None:
    with (
        running_server(*flags, "--grace", "3600") as server,  # applies to calls in progress, not to idle streams
        grpc.insecure_channel(server.target) as channel,
    ):
        release = threading.Event()

        def requests() -> Iterator[pb.ModelInferRequest]:
            yield request(1)
            yield request(2)
            release.wait(PATIENCE)

        stream = GRPCInferenceServiceStub(channel).ModelStreamInfer(requests())
        assert [next(stream).infer_response.id, next(stream).infer_response.id] == ["1", "2"]
        watch = HealthStub(channel).Watch(health_pb2.HealthCheckRequest())  # type: ignore[attr-defined]
        next(watch)
        server.process.send_signal(signal.SIGTERM)
        with pytest.raises(grpc.RpcError) as caught:
            next(stream)
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
        release.set()
        server.process.wait(PATIENCE)


def test_shutdown_ends_after_the_grace_period(flags: list[str], tmp_path: Path) -> None:
    log = tmp_path / "log"
    with (
        running_server(*flags, "--grace", "0.2", log=log) as server,
        grpc.insecure_channel(server.target) as channel,
    ):
        tensor = pb.ModelInferRequest.InferInputTensor(name="x", datatype="FP32", shape=[4000, 1])
        slow = pb.ModelInferRequest(model_name="slow", inputs=[tensor], raw_input_contents=[bytes(16000)])
        call = GRPCInferenceServiceStub(channel).ModelInfer.future(slow)
        while server.sample('medserve_inflight_requests{model="slow"') == 0:
            assert not call.done()
        server.process.send_signal(signal.SIGTERM)
        assert call.code() in {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED}
        assert server.process.wait(PATIENCE) == 0
    assert "--grace 0.2 s passed" in log.read_text()


def test_allowed_fallback_is_logged(tmp_path: Path) -> None:
    log = tmp_path / "log"
    with running_server("--provider", "cuda", "--allow-fallback", "--transport", "grpcio", log=log) as server:
        assert 'medserve_session_info{model="chest-xray",precision="fp32",provider="cpu"' in server.metrics()
    assert "falling back to cpu" in log.read_text()


def test_port_in_use_is_reported(server: ServerProcess) -> None:
    port = server.target.rsplit(":", 1)[1]
    assert f"cannot listen on 127.0.0.1:{port}" in refusal("--port", port)
