"""The metrics port: its pages, and its robustness against clients."""

import gzip
import select
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from threading import Event

import pytest
from prometheus_client import CollectorRegistry, Metric
from prometheus_client.registry import Collector

from medserve_server.http import port as http_port
from medserve_server.http.metrics_page import MAX_SCRAPES, serve_metrics
from medserve_server.supervise import INTERNAL_ERRORS
from waiting import PATIENCE, wait_until


class Once(Collector):
    """Fails on the first request."""

    asked = 0

    def collect(self) -> Iterator[Metric]:
        self.asked += 1
        if self.asked == 1:
            raise ZeroDivisionError
        yield from INTERNAL_ERRORS.collect()

    def describe(self) -> list[Metric]:
        return []


class Held(Collector):
    """Blocks until `go` is set."""

    def __init__(self) -> None:
        self.asked = Event()
        self.go = Event()

    def collect(self) -> Iterator[Metric]:
        self.asked.set()
        self.go.wait(PATIENCE)
        yield from INTERNAL_ERRORS.collect()

    def describe(self) -> list[Metric]:
        return []


class Port:
    """A metrics port on the loopback interface, and the readiness that it reports."""

    def __init__(self, registry: CollectorRegistry, token_file: Path | None = None, host: str = "127.0.0.1") -> None:
        self.reason = ""
        self.host = host
        self.port, self.stop = serve_metrics(registry, host, 0, token_file, lambda: self.reason)

    def connect(self) -> socket.socket:
        return socket.create_connection((self.host, self.port), timeout=PATIENCE)

    def send(self, data: bytes) -> bytes:
        """Returns everything received until the server closes the connection."""
        with self.connect() as connection:
            connection.sendall(data)
            return rest(connection)

    def ask(self, path: str, *headers: str, method: str = "GET") -> tuple[int, dict[str, str], bytes]:
        lines = [f"{method} {path} HTTP/1.1", "Host: test", "Connection: keep-alive", *headers, "", ""]
        head, _, body = self.send("\r\n".join(lines).encode()).partition(b"\r\n\r\n")
        status, *fields = head.decode().split("\r\n")
        named = dict(field.lower().split(": ", 1) for field in fields)
        return int(status.split()[1]), named, body


def rest(connection: socket.socket) -> bytes:
    try:
        return b"".join(iter(lambda: connection.recv(65536), b""))
    except ConnectionResetError:
        return b""


def registry_of(collector: Collector = INTERNAL_ERRORS) -> CollectorRegistry:
    registry = CollectorRegistry()
    registry.register(collector)
    return registry


@pytest.fixture(scope="module")
def port() -> Iterator[Port]:
    port = Port(registry_of())
    yield port
    port.stop()


def test_the_metrics_are_on_their_page(port: Port) -> None:
    status, headers, body = port.ask("/metrics")
    assert status == 200
    assert headers["content-type"].startswith("text/plain; version=")
    assert not {"server", "date"} & headers.keys()
    assert b"# TYPE medserve_internal_errors_total counter" in body


def test_the_accept_header_selects_the_format(port: Port) -> None:
    _, headers, body = port.ask("/metrics", "Accept: application/openmetrics-text", "Accept-Encoding: gzip")
    assert headers["content-type"].startswith("application/openmetrics-text")
    assert gzip.decompress(body).endswith(b"# EOF\n")
    assert port.ask("/metrics?name[]=nothing")[2] == b""


@pytest.mark.parametrize("path", ["/", "/metrics/", "/v2/models/x/ready", "/v2/health/ready", "/livez/x", "/%ff"])
def test_other_paths_are_not_found(port: Port, path: str) -> None:
    assert port.ask(path)[::2] == (404, b"no such page; the pages are /metrics, /livez, /readyz\n")


@pytest.mark.parametrize("path", ["/metrics", "/livez", "/readyz"])
def test_head_has_no_body_and_other_methods_are_rejected(port: Port, path: str) -> None:
    status, headers, body = port.ask(path, method="HEAD")
    assert (status, body) == (200, b"")
    assert int(headers["content-length"]) > 0
    for method in ("POST", "PUT", "DELETE", "OPTIONS"):
        status, headers, _ = port.ask(path, method=method)
        assert (status, headers["allow"]) == (405, "get, head")


def test_readiness_states_the_reason(port: Port) -> None:
    assert port.ask("/readyz")[::2] == (200, b"ok\n")
    port.reason = "loading models"
    assert port.ask("/readyz")[::2] == (503, b"loading models\n")
    assert port.ask("/livez")[::2] == (200, b"ok\n"), "it lives all the same"
    port.reason = ""


def test_probes_require_no_token(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("sésame\n", encoding="utf-8")
    port = Port(registry_of(), file)
    try:
        assert [port.ask(path)[0] for path in ("/livez", "/readyz", "/metrics")] == [200, 200, 401]
        assert port.ask("/metrics", "Authorization: Bearer wrong")[0] == 401
        assert port.ask("/metrics", "Authorization: bearer sésame")[0] == 200
    finally:
        port.stop()


def test_a_failed_page_is_reported_and_the_next_one_served() -> None:
    port = Port(registry_of(Once()))
    try:
        assert port.ask("/metrics")[::2] == (500, b"internal server error; see the server log\n")
        assert b'medserve_internal_errors_total{where="metrics page"} 1.0' in port.ask("/metrics")[2]
    finally:
        port.stop()


def test_probes_are_answered_while_metrics_are_blocked() -> None:
    held = Held()
    registry = CollectorRegistry()
    registry.register(held)
    port = Port(registry)
    try:
        with ExitStack() as stack:
            readers = [stack.enter_context(port.connect()) for _ in range(MAX_SCRAPES)]
            for reader in readers:
                reader.sendall(b"GET /metrics HTTP/1.1\r\nHost: test\r\n\r\n")
            assert port.ask("/livez")[0] == 200
            assert port.ask("/metrics")[0] == 503, "one reader too many"
            held.go.set()
            assert all(rest(reader).startswith(b"HTTP/1.1 200 ") for reader in readers)
        assert port.ask("/metrics")[0] == 200
    finally:
        held.go.set()
        port.stop()


@pytest.mark.parametrize(
    "rubbish",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\r\n\r\n",
        b"GET /livez\r\n\r\n",
        b"GET /livez HTTP/1.1\r\n\r\n",  # no Host
        b"GET /livez HTTP/1.1\r\nHost: test\r\nX: " + b"x" * 9000,
        b"GET /" + b"x" * 9000,
    ],
    ids=["tls", "no-version", "no-host", "long-header", "long-path"],
)
def test_a_malformed_request_is_rejected(port: Port, rubbish: bytes) -> None:
    assert port.send(rubbish).startswith(b"HTTP/1.1 400 ")
    assert port.ask("/livez")[0] == 200


def test_bytes_after_a_request_are_not_read(port: Port, caplog: pytest.LogCaptureFixture) -> None:
    head = b"GET /livez HTTP/1.1\r\nHost: test\r\n"
    assert port.send(head + b"\r\n" + head + b"\r\n").count(b"HTTP/1.1 ") == 1
    assert port.send(head + b"Content-Length: 9999999999\r\nExpect: 100-continue\r\n\r\n").startswith(b"HTTP/1.1 200 ")
    assert b"HTTP/1.1 200 " not in port.send(head + b"Transfer-Encoding: chunked\r\n\r\nno chunk\r\n")
    assert caplog.records == []


def test_a_body_that_arrives_later_is_not_read() -> None:
    held = Held()
    port = Port(registry_of(held))
    try:
        with port.connect() as connection:
            connection.sendall(b"GET /metrics HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n")
            assert held.asked.wait(PATIENCE)
            connection.sendall(b"no chunk\r\n")
            assert port.ask("/livez")[0] == 200, "the bytes have arrived"
            held.go.set()
            assert rest(connection).startswith(b"HTTP/1.1 200 ")
    finally:
        held.go.set()
        port.stop()


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> Iterator[Port]:
    """A port with a shorter connection timeout."""
    monkeypatch.setattr(http_port, "CONNECTION_SECONDS", 0.5)
    port = Port(registry_of())
    yield port
    port.stop()


@pytest.mark.parametrize("begin", [b"", b"GET /metrics HTTP/1.1\r\nHost: test\r\n"], ids=["silent", "stops"])
def test_a_client_that_does_not_finish_its_request_is_disconnected(
    impatient: Port, begin: bytes, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    assert impatient.send(begin) == b""
    assert caplog.records == []
    assert capfd.readouterr() == ("", "")


def test_a_client_that_trickles_is_disconnected(impatient: Port) -> None:
    with impatient.connect() as connection:
        connection.sendall(b"GET /metrics HTTP/1.1\r\nX: ")

        def closed() -> bool:
            try:
                connection.sendall(b"x")
            except OSError:
                return True
            return False

        wait_until(closed, "the server to close the connection")


class Large(Collector):
    """More than socket buffers hold."""

    def collect(self) -> Iterator[Metric]:
        yield Metric("large", "x" * 2**24, "counter")

    def describe(self) -> list[Metric]:
        return []


def test_a_client_that_reads_nothing_is_disconnected(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_port, "CONNECTION_SECONDS", 2)
    port = Port(registry_of(Large()))
    try:
        with port.connect() as connection:
            connection.sendall(b"GET /metrics HTTP/1.1\r\nHost: test\r\n\r\n")
            poll = select.poll()
            poll.register(connection, 0)  # waits only for the end
            assert poll.poll(PATIENCE * 1000), "the server gives up"
    finally:
        port.stop()


@pytest.mark.parametrize("begin", [b"", b"GET /metrics HTTP/1.1\r\n", b"GET /livez HTTP/1.1\r\nHost: test\r\n\r\n"])
def test_open_connections_do_not_delay_shutdown(begin: bytes) -> None:
    port = Port(registry_of())
    with port.connect() as connection:
        connection.sendall(begin)
        assert port.ask("/livez")[0] == 200
        port.stop()
        rest(connection)  # closed by the server
    with pytest.raises(ConnectionRefusedError):
        port.connect()


def test_a_client_that_reads_nothing_does_not_delay_shutdown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_port, "CONNECTION_SECONDS", 3600)
    port = Port(registry_of(Large()))
    with port.connect() as connection:
        connection.sendall(b"GET /metrics HTTP/1.1\r\nHost: test\r\n\r\n")
        connection.recv(1, socket.MSG_PEEK)
        port.stop()
        poll = select.poll()
        poll.register(connection, 0)
        assert poll.poll(PATIENCE * 1000), "the server gives up"


def test_a_port_in_use_is_reported_with_its_flag() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        number = other.getsockname()[1]
        with pytest.raises(OSError, match="listen") as caught:
            serve_metrics(registry_of(), "127.0.0.1", number, None, str)
    assert (
        str(caught.value)
        == f"cannot listen on 127.0.0.1:{number}; if it is in use, choose another port with --metrics-port"
    )


def test_an_ipv6_address_is_supported() -> None:
    port = Port(registry_of(), host="::1")
    try:
        assert port.ask("/livez")[0] == 200
    finally:
        port.stop()
