"""The REST port: connections, TLS and shutdown."""

import socket
import ssl
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from calls.rest_client import RestClient, tensor
from samples import onnx_models
from samples.certificates import Authority
from servers.held_server import held_server
from servers.server_process import ServerProcess, refusal, running_server
from waiting import PATIENCE, wait_until

ROW = tensor("FP32", [1, 3], [1, 2, 3])


@contextmanager
def connected(url: str, sent: bytes = b"") -> Iterator[socket.socket]:
    address = urlsplit(url)
    with closing(socket.create_connection((address.hostname, address.port), PATIENCE)) as connection:
        connection.sendall(sent)
        yield connection


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    onnx_models.save(folder, "identity-fp32", onnx_models.identity("FP32", ["batch", 3]))
    return folder


@pytest.fixture(scope="module")
def server(models: Path, transport: str) -> Iterator[ServerProcess]:
    with running_server("--transport", transport, "--models", str(models)) as started:
        yield started


def test_port_in_use_is_reported_with_its_flag() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        error = refusal("--transport", "grpcio", "--http-port", str(port))
    assert f"cannot listen on 127.0.0.1:{port}; if it is in use, choose another port with --http-port" in error


def test_connection_beyond_the_limit_is_closed(models: Path, transport: str) -> None:
    flags = ("--transport", transport, "--models", str(models), "--max-connections", "3")
    with running_server(*flags) as server, ExitStack() as stack:
        held = [stack.enter_context(connected(server.http_url, b"GET /livez HTTP/1.1\r\n")) for _ in range(3)]
        client = RestClient(server.http_url, {})
        with pytest.raises(ConnectionError):
            client.get("/livez")
        held[0].sendall(b"host: a\r\n\r\n")
        assert held[0].recv(100).startswith(b"HTTP/1.1 200 OK\r\n")
        held[1].close()

        def accepts_another() -> bool:
            try:
                return client.get("/livez").status == 200
            except ConnectionError:
                return False

        wait_until(accepts_another, "a free connection")


def test_slow_and_malformed_requests_are_terminated(models: Path, transport: str) -> None:
    flags = ("--transport", transport, "--models", str(models), "--max-connection-idle", "2")
    with (
        running_server(*flags) as server,
        connected(server.http_url) as silent,
        connected(server.http_url, b"GET /livez HTTP/1.1\r\nx: ") as slow,
        connected(server.http_url, b"GET /livez HTTP/1.1\r\nx: " + b"y" * (33 << 10)) as long,
        connected(server.http_url, b"\x16\x03\x01 no HTTP\r\n\r\n") as wrong,
    ):
        assert long.recv(100).startswith(b"HTTP/1.1 4")
        assert wrong.recv(100).startswith(b"HTTP/1.1 400")
        for connection in (silent, slow):
            with suppress(ConnectionError):
                assert connection.recv(100)[:12] in {b"", b"HTTP/1.1 408"}
        assert RestClient(server.http_url, {}).get("/livez").status == 200


def test_several_requests_on_one_connection(server: ServerProcess) -> None:
    request = b"GET /livez HTTP/1.1\r\nhost: a\r\n\r\n"
    with connected(server.http_url) as connection:
        for _ in range(3):
            connection.sendall(request)
            response = b""
            while not response.endswith(b"ok\n"):
                response += connection.recv(1000)


def test_http_1_0(server: ServerProcess) -> None:
    """Some proxies still use it, possibly without a Host header."""
    for request in (b"GET /livez HTTP/1.0\r\n\r\n", b"GET /livez HTTP/1.0\r\nhost: a\r\n\r\n"):
        response = b""
        with connected(server.http_url, request) as connection:
            while received := connection.recv(1000):
                response += received
        assert response.split(b" ")[1] == b"200"
        assert response.endswith(b"\r\n\r\nok\n")


@pytest.mark.parametrize(
    "headers",
    [
        b"content-length: 5\r\ntransfer-encoding: chunked\r\n",
        b"transfer-encoding: chunked\r\ncontent-length: 5\r\n",
        b"Transfer-Encoding: Chunked\r\nCONTENT-LENGTH: 0\r\n",
    ],
)
@pytest.mark.parametrize("target", [b"POST /v2/models/identity-fp32/infer", b"GET /livez", b"POST /v1/nothing"])
def test_body_with_two_lengths_is_refused(server: ServerProcess, target: bytes, headers: bytes) -> None:
    """Otherwise bytes that a proxy considers part of the body could be read as another request."""
    body = b"0\r\n\r\n"
    smuggled = b"GET /livez HTTP/1.1\r\nhost: a\r\n\r\n"
    request = target + b" HTTP/1.1\r\nhost: a\r\n" + headers + b"\r\n" + body + smuggled
    response = b""
    with connected(server.http_url, request) as connection, suppress(ConnectionError):
        while received := connection.recv(1000):
            response += received
            assert b"HTTP/1.1 200 " not in response
    assert response.startswith(b"HTTP/1.1 400 ")
    assert response.count(b"HTTP/1.1 ") == 1


def test_disconnect_cancels_the_call(models: Path, transport: str, tmp_path: Path) -> None:
    """Its call ends, and is not run if it has not reached the model."""
    with held_server(tmp_path / "hold", "--transport", transport, "--models", str(models)) as held:
        body = b'{"inputs":[{"name":"x","shape":[1,3],"datatype":"FP32","data":[1,2,3]}]}'
        head = b"POST /v2/models/identity-fp32/infer HTTP/1.1\r\nhost: a\r\ncontent-length: %d\r\n\r\n" % len(body)
        with held.hold():
            with connected(held.server.http_url, head + body), connected(held.server.http_url, head + body):
                held.wait_for_calls(2)
            held.wait_for_calls(0)
        assert RestClient(held.server.http_url, {}).infer("identity-fp32", ROW).status == 200


def test_accepted_calls_are_answered_before_shutdown(models: Path, transport: str, tmp_path: Path) -> None:
    with (
        held_server(tmp_path / "hold", "--transport", transport, "--models", str(models)) as held,
        ThreadPoolExecutor() as pool,
        connected(held.server.http_url, b"GET /livez HTTP/1.1\r\n") as idle,
    ):
        client = RestClient(held.server.http_url, {})
        with held.hold():
            call = pool.submit(client.infer, "identity-fp32", ROW)
            held.wait_for_calls(1)
            held.server.process.terminate()

            def takes_more() -> bool:
                try:
                    return client.get("/readyz").status == 200
                except ConnectionError:  # the port is closed
                    return False

            wait_until(lambda: not takes_more(), "calls to be refused")
        assert call.result().status == 200
        with suppress(ConnectionError):
            assert idle.recv(1) == b""
        held.server.process.wait(PATIENCE)


def test_tls_and_client_certificates(models: Path, transport: str, tmp_path: Path) -> None:
    ours, theirs = Authority("ours"), Authority("theirs")
    certificate, key, ca = (tmp_path / name for name in ("server.pem", "server.key", "ca.pem"))
    ours.issue().write(certificate, key)
    ours.issue("client").write(tmp_path / "client.pem", tmp_path / "client.key")
    theirs.issue("client").write(tmp_path / "stranger.pem", tmp_path / "stranger.key")
    ca.write_bytes(ours.pem)

    def client(url: str, name: str = "", trusted: bytes = ours.pem) -> RestClient:
        context = ssl.create_default_context(cadata=trusted.decode())
        if name:
            context.load_cert_chain(tmp_path / f"{name}.pem", tmp_path / f"{name}.key")
        return RestClient(url, {}, context)

    flags = ("--tls-certificate", str(certificate), "--tls-key", str(key), "--tls-client-ca", str(ca))
    with running_server("--transport", transport, "--models", str(models), *flags) as server:
        assert server.http_url.startswith("https://")
        assert client(server.http_url, "client").infer("identity-fp32", ROW).status == 200
        for name in ("", "stranger"):
            with pytest.raises((ssl.SSLError, ConnectionError)):
                client(server.http_url, name).get("/livez")
        newer = Authority("newer")
        newer.issue().write(certificate, key)

        def takes_the_new_one() -> bool:
            try:
                return client(server.http_url, "client", newer.pem).get("/livez").status == 200
            except ssl.SSLError:
                return False

        wait_until(takes_the_new_one, "the new certificate to be used")
        with pytest.raises((ssl.SSLError, ConnectionError)):
            client(server.http_url, trusted=newer.pem).get("/livez")


def test_workers_share_the_port(models: Path, transport: str) -> None:
    with running_server("--transport", transport, "--models", str(models), "--workers", "2") as server:
        client = RestClient(server.http_url, {})
        assert {client.infer("identity-fp32", ROW).status for _ in range(8)} == {200}
