"""Requests that stall are ended with an error and counted; slow requests that make progress are answered."""

import queue
import socket
from collections.abc import Callable, Iterator
from contextlib import closing
from urllib.parse import urlsplit

import grpc
import pytest

from medserve_proto.inference import grpc_service_pb2 as pb
from samples import onnx_models
from servers.model_folder import request
from servers.server_process import ServerProcess, running_server
from waiting import PATIENCE

INFER = "/inference.GRPCInferenceService/ModelInfer"
STREAM = "/inference.GRPCInferenceService/ModelStreamInfer"
WATCH = "/grpc.health.v1.Health/Watch"
BODY = b'{"inputs":[{"name":"x","datatype":"FP32","shape":[1,1],"data":[1]}]}'
SECONDS, RATE = "0.5", "0.01"  # each byte is worth 100 seconds
PATHS = {
    "/v2/models/a/infer": '"error":"the request was not complete',
    "/v1/models/a:classify": '"status":"DEADLINE_EXCEEDED"',
    "/v2/repository/index": '"error":"the request was not complete',
}
LENGTH = f"Content-Length: {len(BODY)}\r\n\r\n"
CHUNKED = "Transfer-Encoding: chunked\r\n\r\n"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, transport: str) -> Iterator[ServerProcess]:
    folder = tmp_path_factory.mktemp("models")
    onnx_models.save(folder, "a", onnx_models.add(1))
    flags = ("--transport", transport, "--models", str(folder))
    with running_server(*flags, patch=("impatient", SECONDS, RATE)) as started:
        yield started


@pytest.fixture
def unread(server: ServerProcess) -> Callable[[], int]:
    """Returns a function that counts the unread requests since the start of the test."""
    before = server.total("medserve_unread_total")
    return lambda: int(server.total("medserve_unread_total") - before)


def rest(server: ServerProcess, path: str, rest_of_headers: str) -> socket.socket:
    """Opens a connection and sends the headers of a request."""
    url = urlsplit(server.http_url)
    connection = socket.create_connection((str(url.hostname), url.port or 0), timeout=PATIENCE)
    headers = f"POST {path} HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n{rest_of_headers}"
    connection.sendall(headers.encode())
    return connection


def received(connection: socket.socket) -> str:
    """Reads until the connection is closed."""
    parts = []
    while part := connection.recv(4096):
        parts.append(part)
    return b"".join(parts).decode()


@pytest.mark.parametrize("headers", [LENGTH, CHUNKED], ids=["length", "chunked"])
@pytest.mark.parametrize("path", PATHS)
def test_stalled_rest_request(server: ServerProcess, unread: Callable[[], int], path: str, headers: str) -> None:
    with closing(rest(server, path, headers)) as connection:
        response = received(connection)
    assert response.startswith("HTTP/1.1 408 ")
    assert PATHS[path] in response
    assert unread() == 1


def test_unread_body_closes_the_connection(server: ServerProcess) -> None:
    with closing(rest(server, "/nothing", LENGTH)) as connection:
        assert received(connection).startswith("HTTP/1.1 404 ")


@pytest.mark.parametrize("at_once", [0, 1, len(BODY) - 1])
def test_slow_rest_request_with_progress(server: ServerProcess, unread: Callable[[], int], at_once: int) -> None:
    """Including if part of the body arrives together with the headers."""
    with closing(rest(server, "/v2/models/a/infer", LENGTH + BODY[:at_once].decode())) as slow:
        slow.sendall(BODY[at_once:-1])
        for _ in range(3):  # longer than a request may take without progress
            with closing(rest(server, "/v2/models/a/infer", LENGTH)) as late:
                assert received(late).startswith("HTTP/1.1 408 ")
        slow.sendall(BODY[-1:])
        assert slow.recv(4096).startswith(b"HTTP/1.1 200 ")
    assert unread() == 3


@pytest.fixture
def channel(server: ServerProcess) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(server.target) as opened:
        yield opened


class Open:
    """A call whose client sends messages, and half-closes it only on request."""

    def __init__(self, channel: grpc.Channel, path: str, *messages: bytes) -> None:
        self._messages: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        for message in messages:
            self.send(message)
        call: grpc.StreamStreamMultiCallable[bytes, bytes] = channel.stream_stream(path)
        self.responses = call(iter(self._messages.get, None), timeout=PATIENCE)

    def send(self, message: bytes | None) -> None:
        self._messages.put(message)

    def end(self) -> None:
        self.send(None)


ENVOY = pytest.mark.parametrize("transport", ["envoy"], indirect=True, scope="session")  # grpcio reads requests itself


@ENVOY
@pytest.mark.parametrize("path", [INFER, WATCH])
def test_stalled_grpc_request(channel: grpc.Channel, unread: Callable[[], int], path: str) -> None:
    call = Open(channel, path)
    assert call.responses.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    assert "the request was not complete" in call.responses.details()
    assert unread() == 1
    call.end()


@ENVOY
def test_slow_grpc_request_with_progress_and_idle_streams(channel: grpc.Channel, unread: Callable[[], int]) -> None:
    message = request("a", 1.0).SerializeToString()
    slow, stream, silent = Open(channel, INFER, message), Open(channel, STREAM, message), Open(channel, STREAM)
    assert pb.ModelStreamInferResponse.FromString(next(stream.responses)).infer_response.outputs
    late = Open(channel, INFER)
    assert late.responses.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    late.end()
    for call in (stream, silent):
        call.send(message)
        assert pb.ModelStreamInferResponse.FromString(next(call.responses)).infer_response.outputs
    for call, left in ((slow, 1), (stream, 0), (silent, 0)):
        call.end()
        assert len(list(call.responses)) == left
    assert unread() == 1
