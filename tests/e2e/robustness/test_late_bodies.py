"""Requests that arrive too slowly: ended, told why and counted, while slow ones that make progress are answered."""

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
    """How many requests were never read since the test began."""
    before = server.total("medserve_unread_total")
    return lambda: int(server.total("medserve_unread_total") - before)


def rest(server: ServerProcess, path: str, rest_of_headers: str) -> socket.socket:
    """A connection on which the headers of a request were sent."""
    url = urlsplit(server.http_url)
    connection = socket.create_connection((str(url.hostname), url.port or 0), timeout=PATIENCE)
    headers = f"POST {path} HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n{rest_of_headers}"
    connection.sendall(headers.encode())
    return connection


def received(connection: socket.socket) -> str:
    """Everything up to the end of the connection."""
    parts = []
    while part := connection.recv(4096):
        parts.append(part)
    return b"".join(parts).decode()


@pytest.mark.parametrize("headers", [LENGTH, CHUNKED], ids=["length", "chunked"])
@pytest.mark.parametrize("path", PATHS)
def test_rest(server: ServerProcess, unread: Callable[[], int], path: str, headers: str) -> None:
    with closing(rest(server, path, headers)) as connection:
        answer = received(connection)
    assert answer.startswith("HTTP/1.1 408 ")
    assert PATHS[path] in answer
    assert unread() == 1


def test_an_unread_body_ends_the_connection(server: ServerProcess) -> None:
    with closing(rest(server, "/nothing", LENGTH)) as connection:
        assert received(connection).startswith("HTTP/1.1 404 ")


@pytest.mark.parametrize("at_once", [0, 1, len(BODY) - 1])
def test_rest_that_makes_progress(server: ServerProcess, unread: Callable[[], int], at_once: int) -> None:
    """Also where some of the body comes along with the headers."""
    with closing(rest(server, "/v2/models/a/infer", LENGTH + BODY[:at_once].decode())) as slow:
        slow.sendall(BODY[at_once:-1])
        for _ in range(3):  # longer than the connection may last without progress
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
    """A call whose client sends messages, and does not say that there are no more before it is told to."""

    def __init__(self, channel: grpc.Channel, path: str, *messages: bytes) -> None:
        self._messages: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        for message in messages:
            self.send(message)
        call: grpc.StreamStreamMultiCallable[bytes, bytes] = channel.stream_stream(path)
        self.answers = call(iter(self._messages.get, None), timeout=PATIENCE)

    def send(self, message: bytes | None) -> None:
        self._messages.put(message)

    def end(self) -> None:
        self.send(None)


ENVOY = pytest.mark.parametrize("transport", ["envoy"], indirect=True, scope="session")  # grpcio's reads by itself


@ENVOY
@pytest.mark.parametrize("path", [INFER, WATCH])
def test_grpc(channel: grpc.Channel, unread: Callable[[], int], path: str) -> None:
    call = Open(channel, path)
    assert call.answers.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    assert "the request was not complete" in call.answers.details()
    assert unread() == 1
    call.end()


@ENVOY
def test_grpc_that_makes_progress_and_streams_that_are_idle(channel: grpc.Channel, unread: Callable[[], int]) -> None:
    message = request("a", 1.0).SerializeToString()
    slow, stream, silent = Open(channel, INFER, message), Open(channel, STREAM, message), Open(channel, STREAM)
    assert pb.ModelStreamInferResponse.FromString(next(stream.answers)).infer_response.outputs
    late = Open(channel, INFER)
    assert late.answers.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    late.end()
    for call in (stream, silent):
        call.send(message)
        assert pb.ModelStreamInferResponse.FromString(next(call.answers)).infer_response.outputs
    for call, left in ((slow, 1), (stream, 0), (silent, 0)):
        call.end()
        assert len(list(call.answers)) == left
    assert unread() == 1
