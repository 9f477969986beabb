"""Requests without their last byte: their total memory is bounded, and small requests are still served."""

import queue
import select
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from urllib.parse import urlsplit

import grpc
import pytest

from calls.rest_client import RestClient
from medserve_proto.inference import grpc_service_pb2 as pb
from medserve_proto.inference.grpc_service_pb2_grpc import GRPCInferenceServiceStub
from samples import onnx_models
from servers.model_folder import request
from servers.server_process import ServerProcess, running_server
from waiting import PATIENCE, wait_until

UNARY = "/inference.GRPCInferenceService/ModelInfer"
PATH = "/v2/models/a/infer"
BODY = b'{"inputs":[{"name":"x","datatype":"FP32","shape":[1,1],"data":[1]}]}'
MIB = 1024 * 1024
HEADERS = f"POST {PATH} HTTP/1.1\r\nHost: a\r\nContent-Length: {2 * MIB}\r\n\r\n".encode()
FITTING = 16 * 2  # requests of 2 MiB, of which the first 1 MiB does not count


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, transport: str) -> Iterator[ServerProcess]:
    folder = tmp_path_factory.mktemp("models")
    onnx_models.save(folder, "a", onnx_models.add(1))
    onnx_models.save(folder, "bytes", onnx_models.identity("UINT8", ["batch", "bytes"]))
    with running_server("--transport", transport, "--models", str(folder), "--max-message-mib", "2") as started:
        yield started


def address(server: ServerProcess) -> tuple[str, int]:
    url = urlsplit(server.http_url)
    return str(url.hostname), url.port or 0


def unfinished(server: ServerProcess) -> socket.socket:
    """Opens a connection and sends a request except its last byte."""
    connection = socket.create_connection(address(server), timeout=PATIENCE)
    connection.sendall(HEADERS)
    connection.sendall(BODY.ljust(2 * MIB - 1))
    return connection


def refused(connections: list[socket.socket], number: int) -> list[socket.socket]:
    """Waits until `number` connections have received a response; returns these."""

    def answered() -> list[socket.socket]:
        return select.select(connections, [], [], 0)[0]

    wait_until(lambda: len(answered()) == number, "the requests beyond the limit to be refused")
    return answered()


def test_rest_requests(server: ServerProcess) -> None:
    for _ in range(2):  # the memory is available again afterwards
        with ExitStack() as connections:
            sent = [connections.enter_context(unfinished(server)) for _ in range(FITTING + 2)]
            too_many = refused(sent, 2)
            assert all(connection.recv(64).startswith(b"HTTP/1.1 429") for connection in too_many)
            assert RestClient(server.http_url, {}).post(PATH, BODY).status == 200
            for connection in set(sent).difference(too_many):
                connection.sendall(b" ")
                assert connection.recv(64).startswith(b"HTTP/1.1 200")


@pytest.mark.parametrize("transport", ["envoy"], indirect=True, scope="session")  # grpcio reads requests itself
def test_grpc_requests(server: ServerProcess) -> None:
    """The message of a unary call has arrived, but the end of the call has not."""
    size = 2 * MIB - 100
    tensor = pb.ModelInferRequest.InferInputTensor(name="x", datatype="UINT8", shape=[1, size])
    message = pb.ModelInferRequest(model_name="bytes", inputs=[tensor], raw_input_contents=[bytes(size)])
    end: queue.SimpleQueue[None] = queue.SimpleQueue()

    def without_end() -> Iterator[bytes]:
        yield message.SerializeToString()
        end.get(timeout=PATIENCE)

    with grpc.insecure_channel(server.target) as channel:
        infer: grpc.StreamUnaryMultiCallable[bytes, pb.ModelInferResponse] = channel.stream_unary(
            UNARY, response_deserializer=pb.ModelInferResponse.FromString
        )
        calls = [infer.future(without_end()) for _ in range(FITTING + 2)]
        wait_until(lambda: any(call.done() for call in calls), "the limit to be reached")
        stub = GRPCInferenceServiceStub(channel)
        assert stub.ModelInfer(request("a", 1.0), timeout=PATIENCE).outputs
        for _ in calls:
            end.put(None)
        codes = [call.code() for call in calls]
        assert set(codes) == {grpc.StatusCode.OK, grpc.StatusCode.RESOURCE_EXHAUSTED}
        assert codes.count(grpc.StatusCode.OK) >= FITTING
        assert stub.ModelInfer(message, timeout=PATIENCE).outputs
