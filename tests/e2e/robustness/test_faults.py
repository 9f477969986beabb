"""Faults of the machine: exhausted file descriptors, a full disk, a jumping clock, and large messages."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import grpc
import numpy as np
import pytest

from medserve_proto.inference import grpc_service_pb2 as pb
from medserve_proto.inference.grpc_service_pb2_grpc import GRPCInferenceServiceStub
from medserve_server.security.auth import new_token
from processes import started
from samples import onnx_models
from servers.model_folder import OK, Caller, request
from servers.server_process import REPOSITORY, ServerProcess, command, environment, free_port, running_server
from waiting import PATIENCE, wait_until

DEADLINE_EXCEEDED = grpc.StatusCode.DEADLINE_EXCEEDED
UNAUTHENTICATED = grpc.StatusCode.UNAUTHENTICATED
FILES = 128


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    onnx_models.save(folder, "a", onnx_models.add(1))
    onnx_models.save(folder, "slow", onnx_models.slow(400))
    onnx_models.save(folder, "wide", onnx_models.identity("FP32", ["batch", 1000]))
    return folder


@pytest.fixture
def flags(models: Path, transport: str) -> tuple[str, ...]:
    return ("--models", str(models), "--transport", transport)


@contextmanager
def caller(target: str) -> Iterator[Caller]:
    """Yields a caller with a separate connection."""
    unlimited = [(f"grpc.max_{way}_message_length", -1) for way in ("send", "receive")]
    with grpc.insecure_channel(target, [("grpc.use_local_subchannel_pool", 1), *unlimited]) as channel:
        yield Caller(channel)


def of_worker(server: ServerProcess) -> Path:
    """Returns the folder in /proc of the process that handles calls."""
    (pid,) = server.workers()
    return Path(f"/proc/{pid}")


def cpu_seconds(server: ServerProcess) -> float:
    fields = (of_worker(server) / "stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def address(url: str) -> tuple[str, int]:
    host, port = url.removeprefix("http://").removesuffix("/metrics").rsplit(":", 1)
    return host, int(port)


def test_exhausted_file_descriptors(flags: tuple[str, ...]) -> None:
    """Existing connections are served without busy-waiting, and new ones once descriptors are available."""
    with running_server(*flags, patch=("few_files", str(FILES))) as server, caller(server.target) as first:
        assert first.number("a") == 1
        with ExitStack() as crowd:
            for _ in range(FILES + 32):
                crowd.enter_context(socket.create_connection(address(server.target), timeout=PATIENCE))
            crowd.enter_context(socket.create_connection(address(server.metrics_url), timeout=PATIENCE))
            files = of_worker(server) / "fd"
            if "envoy" in flags:  # Envoy refuses connections before descriptors are exhausted
                refused = 'medserve_envoy_refused_total{kind="connections"}'
                wait_until(lambda: server.sample(refused) > 0, "connections to be refused")
            else:
                wait_until(lambda: len(os.listdir(files)) == FILES, "the table to be full")  # noqa: PTH208
            for _ in range(50):
                assert first.number("a") == 1
            before = cpu_seconds(server)
            time.sleep(2)
            assert cpu_seconds(server) - before < 1
            assert first.number("a") == 1
        with caller(server.target) as later:
            wait_until(lambda: later.code("a") is OK, "a new connection")
        wait_until(lambda: "medserve_model_ready" in server.metrics(), "the metrics")


@pytest.mark.parametrize(
    "streams", ["> /dev/full 2> /dev/full", ">&- 2> /dev/full", ">&- 2>&- <&-"], ids=["full", "no-output", "closed"]
)
def test_unwritable_output(flags: tuple[str, ...], streams: str) -> None:
    """Output cannot be written, e.g. on a full disk: the server starts, serves and stops normally."""
    port = free_port()
    ports = ("--port", str(port), "--metrics-port", "0", "--log-level", "debug")
    shell = ("sh", "-c", f'exec "$@" {streams}', "sh", sys.executable, "-m", "medserve_server", *ports, *flags)
    with started(shell, cwd=REPOSITORY, env=environment()) as process, caller(f"127.0.0.1:{port}") as client:
        wait_until(lambda: client.code("nothing") is grpc.StatusCode.NOT_FOUND, "the server to start")
        for _ in range(50):
            assert client.number("a") == 1
            assert client.code("nothing") is grpc.StatusCode.NOT_FOUND
        process.terminate()
        assert process.wait(PATIENCE) == 0


def test_reader_of_the_log_exits(flags: tuple[str, ...]) -> None:
    with started(
        [*command(*flags, "--log-level", "debug")],
        cwd=REPOSITORY,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stderr.close()
        target = next(line.split()[1] for line in process.stdout if line.startswith("gRPC"))
        process.stdout.close()
        with caller(target) as client:
            for _ in range(50):
                assert client.number("a") == 1
        process.terminate()
        assert process.wait(PATIENCE) == 0


def test_clock_jumps(flags: tuple[str, ...], tmp_path: Path) -> None:
    """Deadlines, waits, metrics and file reloads use a monotonic clock."""
    tokens = tmp_path / "tokens"
    (old, old_line), (new, new_line) = new_token("old", "infer"), new_token("new", "infer")
    tokens.write_text(f"{old_line}\n")
    more = ("--tokens", str(tokens), "--max-batch-delay-ms", "20", "--max-connection-age", "600")
    with (
        running_server(*flags, *more, patch=("jumping_clock",)) as server,
        grpc.insecure_channel(server.target) as channel,
    ):
        stub = GRPCInferenceServiceStub(channel)

        def code(token: str, name: str = "a", timeout: float = 60) -> grpc.StatusCode:
            metadata = (("authorization", f"Bearer {token}"),)
            found: grpc.StatusCode = stub.ModelInfer.future(request(name, 1), timeout=timeout, metadata=metadata).code()
            return found

        for _ in range(50):
            assert code(old) is OK
        slow = [code(old, "slow", 0.1) for _ in range(3)]
        assert slow == [DEADLINE_EXCEEDED] * 3
        tokens.write_text(f"{new_line}\n")
        wait_until(lambda: code(new) is OK, "the tokens to be reloaded")
        assert code(old) is UNAUTHENTICATED
        for family in ("request", "queue", "compute"):
            assert 0 < server.sample(f"medserve_{family}_duration_seconds_sum{{{_of_a(family)}") < 1800


def _of_a(family: str) -> str:
    return 'api="inference",model="a"' if family == "request" else 'model="a"'


def test_memory_is_bounded_with_the_largest_messages(flags: tuple[str, ...]) -> None:
    rows = np.zeros((1040, 1000), np.float32)  # 3.97 MiB
    tensor = pb.ModelInferRequest.InferInputTensor(name="x", datatype="FP32", shape=rows.shape)
    largest = pb.ModelInferRequest(model_name="wide", inputs=[tensor], raw_input_contents=[rows.tobytes()])
    with running_server(*flags, "--max-message-mib", "4") as server, caller(server.target) as client:

        def ask(times: int) -> int:
            for _ in range(times):
                assert len(client.stub.ModelInfer(largest, timeout=PATIENCE).raw_output_contents[0]) == rows.nbytes
            status = (of_worker(server) / "status").read_text()
            return int(status.partition("VmRSS:")[2].split()[0])

        ask(30)
        assert ask(70) < 600_000, "KiB; 100 messages and their responses need 800,000"
