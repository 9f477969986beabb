"""Malicious clients: the server still serves others, with bounded memory."""

import os
import socket
import struct
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Self

import grpc
import numpy as np
import pytest

from medserve_client.loadtest.protocol import hpack, wire
from medserve_proto.inference import grpc_service_pb2 as pb
from medserve_proto.inference.grpc_service_pb2_grpc import GRPCInferenceServiceStub
from samples import onnx_models
from servers.server_process import ServerProcess, running_server
from waiting import PATIENCE, wait_until

UNARY = "/inference.GRPCInferenceService/ModelInfer"
STREAM = "/inference.GRPCInferenceService/ModelStreamInfer"
PREFACE = wire.HELLO[:24]
MAX_GROWTH_MIB = 100  # of memory, for any behavior of one client


@pytest.fixture(scope="module")
def victim(tmp_path_factory: pytest.TempPathFactory, transport: str) -> Iterator[ServerProcess]:
    """Starts a separate server, whose memory no other test increases."""
    folder = tmp_path_factory.mktemp("models")
    onnx_models.save(folder, "identity-fp32", onnx_models.identity("FP32", ["batch", 3]))
    onnx_models.save(folder, "wide", onnx_models.wide())
    with running_server("--transport", transport, "--models", str(folder)) as started:
        assert_serving(started)
        yield started


def request(rows: int = 1) -> pb.ModelInferRequest:
    array = np.zeros((rows, 3), np.float32)
    tensor = pb.ModelInferRequest.InferInputTensor(name="x", datatype="FP32", shape=array.shape)
    return pb.ModelInferRequest(model_name="identity-fp32", inputs=[tensor], raw_input_contents=[array.tobytes()])


def assert_serving(server: ServerProcess) -> None:
    """Asserts that other clients are served."""
    options = [("grpc.use_local_subchannel_pool", 1)]
    with grpc.insecure_channel(server.target, options) as channel:
        stub = GRPCInferenceServiceStub(channel)
        assert stub.ModelInfer(request(), timeout=PATIENCE).model_name == "identity-fp32"


def resident_mib(server: ServerProcess) -> float:
    (pid,) = server.workers()
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def wait_for(server: ServerProcess, sample: str, value: int) -> None:
    wait_until(lambda: f"{sample} {value}.0\n" in server.metrics(), f"{sample} {value}")


class RawConnection:
    """An HTTP/2 connection on which tests send arbitrary frames; reads only on request."""

    def __init__(self, server: ServerProcess, path: str, window: int) -> None:
        host, port = server.target.rsplit(":", 1)
        self.socket = socket.create_connection((host, int(port)), timeout=PATIENCE)
        self.stream = -1
        """Of the last call."""
        settings = struct.pack(">HI", wire.INITIAL_WINDOW, window)
        self.socket.sendall(PREFACE + frame(wire.SETTINGS, 0, 0, settings))
        self._block, self._next_block = hpack.request_headers(server.target, path, None, None)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def headers(self) -> bytes:
        """Returns the frame that begins a call."""
        self.stream += 2
        block, self._block = self._block, self._next_block
        return frame(wire.HEADERS, wire.END_HEADERS, self.stream, block)

    def call(self, message: bytes) -> bytes:
        """Returns the frames of a unary call."""
        return self.headers() + frame(wire.DATA, wire.END_STREAM, self.stream, prefixed(message))

    def send(self, data: bytes, patience: float = PATIENCE) -> bool:
        """Sends data; returns False if the server reads nothing for `patience` seconds or closed the connection."""
        self.socket.settimeout(patience)
        try:
            self.socket.sendall(data)
        except OSError:
            return False
        return True


def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return wire.FRAME.pack(len(payload) >> 8, len(payload) & 255, kind, flags, stream) + payload


def prefixed(message: bytes) -> bytes:
    return b"\0" + len(message).to_bytes(4) + message


def test_client_that_never_reads_responses(victim: ServerProcess) -> None:
    before = resident_mib(victim)
    calls = 200  # below the limits on pending data and on calls per connection
    tensor = pb.ModelInferRequest.InferInputTensor(name="x", datatype="FP32", shape=[1, 1])
    message = pb.ModelInferRequest(model_name="wide", inputs=[tensor], raw_input_contents=[bytes(4)])
    with RawConnection(victim, UNARY, window=0) as connection:
        for _ in range(calls):
            assert connection.send(connection.call(message.SerializeToString()))
        # The responses, 12 kB each, are ready, but flow control does not allow any to be sent.
        code = 'api="inference",code="OK",model="wide",version="1"'
        wait_for(victim, f"medserve_inference_requests_total{{{code}}}", calls)
        assert_serving(victim)
        assert resident_mib(victim) < before + MAX_GROWTH_MIB
    assert_serving(victim)


def test_stream_whose_responses_are_never_read(victim: ServerProcess) -> None:
    before = resident_mib(victim)
    sent = 0

    def requests() -> Iterator[pb.ModelInferRequest]:
        nonlocal sent
        message = request(rows=1000)
        for _ in range(20_000):  # 240 MB
            sent += 1
            yield message

    with grpc.insecure_channel(victim.target) as channel:
        call = GRPCInferenceServiceStub(channel).ModelStreamInfer(requests())
        taken = -1
        while taken != sent:
            taken = sent
            time.sleep(2)
        assert sent < 20_000  # the server stops reading while responses cannot be sent
        assert_serving(victim)
        assert resident_mib(victim) < before + MAX_GROWTH_MIB
        call.cancel()


def test_stream_that_ignores_flow_control(victim: ServerProcess) -> None:
    before = resident_mib(victim)
    message = prefixed(request(rows=1000).SerializeToString())
    with RawConnection(victim, STREAM, window=0) as connection:
        connection.send(connection.headers())
        for _ in range(20_000):
            if not connection.send(frame(wire.DATA, 0, 1, message), patience=2):
                break
        assert_serving(victim)
        assert resident_mib(victim) < before + MAX_GROWTH_MIB


def test_calls_that_are_reset_immediately(victim: ServerProcess) -> None:
    before = resident_mib(victim)
    message = request().SerializeToString()
    with RawConnection(victim, UNARY, window=65535) as connection:
        for _ in range(20_000):
            call = connection.call(message)
            reset = frame(wire.RST_STREAM, 0, connection.stream, struct.pack(">I", wire.CANCEL))
            if not connection.send(call + reset, patience=2):
                break
        assert_serving(victim)
    wait_for(victim, 'medserve_inflight_requests{model="identity-fp32",version="1"}', 0)
    assert resident_mib(victim) < before + MAX_GROWTH_MIB


def test_10_000_cancelled_calls(victim: ServerProcess) -> None:
    before = resident_mib(victim)
    with grpc.insecure_channel(victim.target) as channel:
        stub = GRPCInferenceServiceStub(channel)
        for _ in range(10_000):
            stub.ModelInfer.future(request()).cancel()
    assert_serving(victim)
    wait_for(victim, 'medserve_inflight_requests{model="identity-fp32",version="1"}', 0)
    assert resident_mib(victim) < before + MAX_GROWTH_MIB


def test_connections_that_stop_in_the_middle_of_a_request(victim: ServerProcess) -> None:
    host, port = victim.target.rsplit(":", 1)
    (pid,) = victim.workers()
    files = Path(f"/proc/{pid}/fd")
    before = len(list(files.iterdir()))
    beginnings = (b"", PREFACE[:10], PREFACE, PREFACE + frame(wire.SETTINGS, 0, 0, b""), wire.HELLO[:-3])
    sockets = [socket.create_connection((host, int(port)), timeout=PATIENCE) for _ in range(200)]
    for index, one in enumerate(sockets):
        one.sendall(beginnings[index % len(beginnings)])
    assert_serving(victim)
    for one in sockets:
        one.close()
    wait_until(
        lambda: len(list(files.iterdir())) <= before + 10, "the server to close the connections that its clients closed"
    )


def test_bytes_that_are_not_http(victim: ServerProcess) -> None:
    host, port = victim.target.rsplit(":", 1)
    generator = np.random.default_rng(0)
    for index in range(100):
        noise = generator.bytes(int(generator.integers(1, 500)))
        with socket.create_connection((host, int(port)), timeout=PATIENCE) as one:
            # Half of them start with a valid preface: frames of random types, flags, streams and contents.
            one.sendall(noise if index % 2 else wire.HELLO + random_frames(generator))
    assert_serving(victim)


def random_frames(generator: np.random.Generator) -> bytes:
    return b"".join(
        frame(int(kind), int(flags), int(generator.choice([0, 1, 3, 2**31 - 1])), generator.bytes(int(size)))
        for kind, flags, size in generator.integers(0, (12, 256, 60), (5, 3))
    )


def test_malformed_messages_are_refused_individually(victim: ServerProcess) -> None:
    generator = np.random.default_rng(0)
    codes: Counter[grpc.StatusCode] = Counter()
    with grpc.insecure_channel(victim.target) as channel:
        call: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(UNARY)
        for _ in range(500):
            codes[call.future(generator.bytes(200), timeout=PATIENCE).code()] += 1
    assert codes == {grpc.StatusCode.INVALID_ARGUMENT: 500}
    assert_serving(victim)
