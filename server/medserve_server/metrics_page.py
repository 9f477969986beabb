"""The page /metrics: on a port of its own, with a token where one was asked for."""

import hashlib
import hmac
import socket
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from socketserver import TCPServer, ThreadingMixIn
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from prometheus_client import CollectorRegistry, make_wsgi_app

from medserve_server.reread import Reread
from medserve_server.supervise import report, start_thread

RETRY_SECONDS = 0.2
JOIN_SECONDS = 2.0
App = Callable[[dict[str, Any], Any], Iterable[bytes]]


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True

    def server_bind(self) -> None:
        """Without HTTPServer's question for the host's full name, which goes out to the network."""
        TCPServer.server_bind(self)
        host, self.server_port = self.socket.getsockname()[:2]
        self.server_name = str(host)
        self.setup_environ()

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ANN401, ARG002 - socketserver's
        """Reports what a connection's thread raised, but that a reader left."""
        error = sys.exception()
        if error is not None and not isinstance(error, OSError):
            report("metrics page", error)

    def get_request(self) -> tuple[socket.socket, Any]:
        """Without descriptors, a connection that waits would be tried again and again at once."""
        try:
            return super().get_request()
        except OSError:
            time.sleep(RETRY_SECONDS)
            raise


class _Server6(_Server):
    address_family = socket.AF_INET6


class _Handler(WSGIRequestHandler):
    timeout = 10  # seconds; who trickles bytes does not keep a thread

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name is wsgiref's
        """Says nothing: Prometheus comes every few seconds."""


def serve_metrics(
    registry: CollectorRegistry, host: str, port: int, token_file: Path | None
) -> tuple[int, Callable[[], None]]:
    """Serves the page from threads of its own; returns the port and a function that ends it.

    Args:
        registry: what it shows.
        host: address to listen on.
        port: 0 takes a free one.
        token_file: holds the token that a reader has to send, as `Authorization: Bearer TOKEN`; None asks for none.

    Raises:
        OSError: the address can't be had.
        SettingsError: the token can't be read.
    """
    app: App = make_wsgi_app(registry)
    if token_file is not None:
        app = _guarded(app, Reread(lambda: _read_token(token_file), token_file))
    server = make_server(host, port, _reported(app), _Server6 if ":" in host else _Server, _Handler)
    thread = start_thread("metrics page", server.serve_forever, restart=True)

    def stop() -> None:
        server.shutdown()
        server.server_close()
        thread.join(JOIN_SECONDS)

    return server.server_port, stop


def _reported(app: App) -> App:
    def answer(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:  # noqa: ANN401 - WSGI's
        try:
            return app(environ, start_response)
        except Exception as error:  # noqa: BLE001 - reported, and answered
            report("metrics page", error)
            start_response("500 Internal Server Error", [("Content-Type", "text/plain")])
            return [b"the server failed; its log says why\n"]

    return answer


def _guarded(app: App, token: Reread[bytes]) -> App:
    def answer(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:  # noqa: ANN401 - WSGI's
        kind, _, given = environ.get("HTTP_AUTHORIZATION", "").partition(" ")
        digest = hashlib.sha256(given.encode()).digest()
        if kind.lower() == "bearer" and hmac.compare_digest(digest, token.current()):
            return app(environ, start_response)
        start_response("401 Unauthorized", [("WWW-Authenticate", "Bearer"), ("Content-Type", "text/plain")])
        return [b"the metrics ask for a token: Authorization: Bearer TOKEN\n"]

    return answer


def _read_token(path: Path) -> bytes:
    token = path.read_text(encoding="utf-8").strip()
    if not token:
        raise ValueError(f"--metrics-token-file {path}: is empty; expected the token")
    return hashlib.sha256(token.encode()).digest()
