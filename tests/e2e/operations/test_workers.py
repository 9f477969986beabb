"""Multiple worker processes on one port."""

import os
import shutil
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import grpc
import numpy as np
import pytest

from medserve_client import ClassificationResponse, Client
from medserve_proto.inference import grpc_service_pb2 as pb
from medserve_proto.inference.grpc_service_pb2_grpc import GRPCInferenceServiceStub
from servers.server_process import REPOSITORY, refusal, running_server
from waiting import PATIENCE, wait_until

# The kernel assigns each connection to a random worker; the probability that one gets all of them is 2 ** -31.
CONNECTIONS = 32
IMAGE = np.random.default_rng(0).integers(0, 256, (28, 28), dtype=np.uint8)


@pytest.fixture
def flags(transport: str) -> list[str]:
    return ["--workers", "2", "--transport", transport]


def listeners(port: int) -> int:
    """Returns the number of sockets that listen on a port (proc(5), /proc/net/tcp); grpcio's are IPv6 sockets."""
    tables = [Path(f"/proc/net/{name}").read_text().splitlines()[1:] for name in ("tcp", "tcp6")]
    fields = [line.split() for table in tables for line in table]
    return sum(local.endswith(f":{port:04X}") and state == "0A" for _, local, _, state, *_ in fields)


def is_alive(pid: int) -> bool:
    """Returns whether a thread of the process still exists, which keeps its connections open."""
    process = Path(f"/proc/{pid}")
    try:
        return "State:\tZ" not in (process / "status").read_text() or len(list((process / "task").iterdir())) > 1
    except (FileNotFoundError, ProcessLookupError):
        return False


@contextmanager
def connections(target: str) -> Iterator[list[GRPCInferenceServiceStub]]:
    """Yields stubs with separate connections, without retries."""
    options = [("grpc.use_local_subchannel_pool", 1), ("grpc.enable_retries", 0)]
    with ExitStack() as stack:
        channels = [stack.enter_context(grpc.insecure_channel(target, options)) for _ in range(CONNECTIONS)]
        yield [GRPCInferenceServiceStub(channel) for channel in channels]


def is_open(connection: socket.socket) -> bool:
    """Returns whether the peer has not closed the connection."""
    connection.setblocking(False)
    try:
        while connection.recv(4096):
            pass
    except BlockingIOError:
        return True
    except ConnectionResetError:
        return False
    return False


def call(stub: GRPCInferenceServiceStub) -> grpc.StatusCode:
    tensor = pb.ModelInferRequest.InferInputTensor(name="image", datatype="UINT8", shape=[1, 28, 28, 1])
    request = pb.ModelInferRequest(model_name="chest-xray", inputs=[tensor], raw_input_contents=[IMAGE.tobytes()])
    code: grpc.StatusCode = stub.ModelInfer.future(request, timeout=PATIENCE).code()
    return code


def refusal_line(*flags: str) -> str:
    """Returns the one-line error of a server that cannot start."""
    (line,) = [line for line in refusal(*flags).splitlines() if line.startswith("medserve-server: ")]
    return line


def test_connections_are_distributed_to_workers(flags: list[str]) -> None:
    with running_server(*flags) as server, ExitStack() as stack:
        host, port = server.target.split(":")
        wait_until(lambda: listeners(int(port)) >= 2)  # grpcio opens several per process
        opened = [stack.enter_context(socket.create_connection((host, int(port)))) for _ in range(CONNECTIONS)]
        one, other = server.workers()
        os.kill(one, signal.SIGKILL)
        wait_until(lambda: not is_alive(one))
        assert 0 < sum(map(is_open, opened)) < CONNECTIONS
        os.kill(other, signal.SIGKILL)
        wait_until(lambda: not is_alive(other))
        assert not any(map(is_open, opened))


def test_metrics_are_summed_and_survive_the_workers(flags: list[str]) -> None:
    with running_server(*flags) as server, connections(server.target) as stubs:
        codes = [call(stub) for stub in stubs for _ in range(3)]
        assert set(codes) == {grpc.StatusCode.OK}
        assert server.total("medserve_inferences_total") == len(codes)
        # A call is counted as ended after its response has been sent.
        wait_until(lambda: server.total("medserve_request_duration_seconds_count") == len(codes))
        wait_until(lambda: server.total("grpc_server_handled_total") == len(codes))
        wait_until(lambda: server.total("medserve_inflight_requests") == 0)
        assert server.total("medserve_pending_requests") == 0
        assert server.sample('medserve_model_ready{model="chest-xray"') == 1
        assert server.total("medserve_workers_replaced_total") == 0

        before, cpu = server.workers(), server.total("process_cpu_seconds_total")
        os.kill(min(before), signal.SIGKILL)
        codes_after = [call(stub) for stub in stubs]
        wait_until(lambda: server.total("medserve_workers_replaced_total") == 1)
        assert len(server.workers()) == 2
        assert server.workers() != before
        assert server.total("medserve_inferences_total") == len(codes) + codes_after.count(grpc.StatusCode.OK)
        assert server.total("process_cpu_seconds_total") >= cpu


def test_client_loses_no_call_when_workers_are_killed(flags: list[str]) -> None:
    with running_server(*flags) as server:
        responses: list[ClassificationResponse] = []
        errors: list[Exception] = []
        enough = threading.Event()

        def load(index: int) -> None:
            # Only channels with different arguments have separate connections.
            with Client(server.target, max_message_bytes=2**20 + index) as client:
                while not enough.is_set():
                    try:
                        responses.append(client.classify(IMAGE, model="chest-xray"))
                    except Exception as error:  # noqa: BLE001 - any error is a lost call
                        errors.append(error)

        threads = [threading.Thread(target=load, args=(index,)) for index in range(8)]
        for thread in threads:
            thread.start()
        counts = [0.0]

        def replaced(number: int) -> bool:
            counts.append(server.total("medserve_inferences_total"))
            return server.total("medserve_workers_replaced_total") == number

        try:
            wait_until(lambda: len(responses) > 100)
            for number, pid in enumerate(server.workers(), 1):
                answered = len(responses)
                os.kill(pid, signal.SIGKILL)
                wait_until(lambda number=number: replaced(number))  # type: ignore[misc]  # the lambda is called here
                wait_until(lambda answered=answered: len(responses) > answered + 100)  # type: ignore[misc]
        finally:
            enough.set()
            for thread in threads:
                thread.join()
        # gRPC does not retry a call once response headers have arrived, and Envoy sends the headers first.
        assert all("Socket closed" in str(error) for error in errors)
        assert len(errors) <= (2 if "envoy" in flags else 0)
        assert counts == sorted(counts)
        probabilities = [response.results[0].labels[0].probability for response in responses]
        assert max(probabilities) - min(probabilities) < 1e-6
        assert server.total("medserve_inferences_total") <= len(responses)


def test_hanging_worker_does_not_block_others(flags: list[str]) -> None:
    with running_server(*flags) as server, connections(server.target) as stubs:
        assert {call(stub) for stub in stubs} == {grpc.StatusCode.OK}
        assert server.total("medserve_inferences_total") == len(stubs)
        hanging, other = sorted(server.workers())
        os.kill(hanging, signal.SIGSTOP)
        try:
            assert server.total("medserve_inferences_total") == len(stubs), "its last metrics are still shown"
            os.kill(other, signal.SIGKILL)
            wait_until(lambda: server.total("medserve_workers_replaced_total") == 1)
        finally:
            os.kill(hanging, signal.SIGCONT)


def test_workers_end_if_the_supervisor_is_killed(flags: list[str]) -> None:
    with running_server(*flags, status=-signal.SIGKILL) as server, connections(server.target) as stubs:
        assert {call(stub) for stub in stubs} == {grpc.StatusCode.OK}
        orphans = server.workers()
        assert len(orphans) == 2
        server.process.kill()
        wait_until(lambda: not any(is_alive(pid) for pid in orphans))


def test_second_signal_ends_all_workers_immediately(flags: list[str], repository: Path, tmp_path: Path) -> None:
    held = tmp_path / "held"
    flags += ["--grace", "3600", "--models", str(repository)]
    with (
        running_server(*flags, patch=("held", str(held)), status=1) as server,
        grpc.insecure_channel(server.target) as channel,
    ):
        held.touch()
        tensor = pb.ModelInferRequest.InferInputTensor(name="x", datatype="FP32", shape=[4000, 1])
        slow = pb.ModelInferRequest(model_name="slow", inputs=[tensor], raw_input_contents=[bytes(16000)])
        pending = GRPCInferenceServiceStub(channel).ModelInfer.future(slow, wait_for_ready=True)
        wait_until(lambda: pending.done() or server.total("medserve_inflight_requests") == 1)
        assert not pending.done(), pending.details()
        server.process.send_signal(signal.SIGTERM)
        wait_until(lambda: len(server.workers()) == 1, "the worker without calls to end")
        assert server.process.poll() is None
        server.process.send_signal(signal.SIGTERM)
        assert pending.code() is grpc.StatusCode.UNAVAILABLE
        server.process.wait(PATIENCE)


def test_server_ends_if_a_worker_cannot_be_replaced(flags: list[str], tmp_path: Path) -> None:
    models, log = tmp_path / "models", tmp_path / "log"
    shutil.copytree(REPOSITORY / "models/chest-xray", models / "chest-xray")
    path = models / "chest-xray/1/model.onnx"
    with running_server(*flags, "--models", str(models), log=log, status=1) as server:
        started = server.workers()
        path.write_bytes(b"no model")
        os.kill(min(started), signal.SIGKILL)
        assert server.process.wait(PATIENCE) == 1
        assert not any(is_alive(pid) for pid in started)
    assert "was killed by SIGKILL; starting a replacement" in log.read_text()
    assert log.read_text().splitlines()[-1].startswith(f"medserve-server: {path}: ")


def test_port_is_shared_only_among_workers(flags: list[str], transport: str) -> None:
    with running_server(*flags) as server:
        host, port = server.target.split(":")
        others = ["--port", port, "--transport", transport]
        for count in ("1", "2"):
            assert f"cannot listen on {server.target}" in refusal_line(*others, "--workers", count)
    with socket.create_server((host, int(port))):
        assert f"cannot listen on {server.target}" in refusal_line(*others, "--workers", "2")
