"""The metrics port: /metrics, with a token where one was asked for, and /livez and /readyz, which ask for none."""

import asyncio
import hashlib
import hmac
from collections.abc import Callable
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry, make_wsgi_app

from medserve_server.file_reloader import FileReloader
from medserve_server.http.asgi import Scope
from medserve_server.http.pages import Page, Response, application, probes
from medserve_server.http.port import serve_pages
from medserve_server.supervise import Pool

WHERE = "metrics page"
MAX_SCRAPES = 8
"""Scrapes at once; one more is refused."""
THREADS = 2
"""That collect metrics: the workers' take up to a second to come."""


def serve_metrics(
    registry: CollectorRegistry, host: str, port: int, token_file: Path | None, why_not_ready: Callable[[], str]
) -> tuple[int, Callable[[], None]]:
    """Serves the pages from threads of their own; returns the port and a function that ends it.

    Args:
        registry: what /metrics shows.
        host: address to listen on.
        port: 0 takes a free one.
        token_file: holds the token that a reader of /metrics has to send, as `Authorization: Bearer TOKEN`; None asks
            for none.
        why_not_ready: what /readyz says, as one line; empty where the server takes work. Any thread may call it, and it
            must not block.

    Raises:
        OSError: the address can't be had.
        SettingsError: the token can't be read.
        ThreadStartError: a thread can't be started.
    """
    token = FileReloader(lambda: _read_token(token_file), token_file) if token_file is not None else None
    pool = Pool(THREADS, thread_name_prefix=WHERE)
    app = application(WHERE, {"/metrics": _metrics(registry, token, pool), **probes(why_not_ready)})
    try:
        port, stop_serving = serve_pages(WHERE, app, host, port, "--metrics-port")
    except BaseException:
        pool.shutdown()
        raise

    def stop() -> None:
        stop_serving()
        pool.shutdown(wait=False, cancel_futures=True)

    return port, stop


def _metrics(registry: CollectorRegistry, token: FileReloader[bytes] | None, pool: Pool) -> Page:
    """Returns the page /metrics, which is made in a thread of the pool."""
    scrapes = asyncio.Semaphore(MAX_SCRAPES)

    def make(scope: Scope) -> Response:
        headers = dict(scope["headers"])
        if token is not None and not _bears(headers, token.current()):
            text = "the metrics ask for a token: Authorization: Bearer TOKEN"
            return Response.line(401, text, ("WWW-Authenticate", "Bearer"))
        return _exposition(registry, headers, scope["query_string"])

    async def page(scope: Scope) -> Response:
        if scrapes.locked():
            return Response.line(503, f"{MAX_SCRAPES} others read the metrics right now; try again")
        async with scrapes:
            return await asyncio.get_running_loop().run_in_executor(pool, make, scope)

    return page


def _exposition(registry: CollectorRegistry, headers: dict[bytes, bytes], query: bytes) -> Response:
    """Makes the page in the format and compression that its reader asks for, as prometheus_client does it."""
    environ = {
        "REQUEST_METHOD": "GET",
        "PATH_INFO": "/metrics",
        "QUERY_STRING": query.decode("latin-1"),
        "HTTP_ACCEPT": headers.get(b"accept", b"").decode("latin-1"),
        "HTTP_ACCEPT_ENCODING": headers.get(b"accept-encoding", b"").decode("latin-1"),
    }
    status = ""
    response_headers: tuple[tuple[str, str], ...] = ()

    def start_response(line: str, given: list[tuple[str, str]], *_: Any) -> Callable[[bytes], object]:  # noqa: ANN401 - WSGI's
        nonlocal status, response_headers
        status, response_headers = line, tuple(given)
        return bytes

    body = b"".join(make_wsgi_app(registry)(environ, start_response))
    return Response(int(status.split(" ", 1)[0]), body, response_headers)


def _bears(headers: dict[bytes, bytes], expected: bytes) -> bool:
    kind, _, given = headers.get(b"authorization", b"").partition(b" ")
    return kind.lower() == b"bearer" and hmac.compare_digest(hashlib.sha256(given).digest(), expected)


def _read_token(path: Path) -> bytes:
    token = path.read_text(encoding="utf-8").strip()
    if not token:
        raise ValueError(f"--metrics-token-file {path}: is empty; expected the token")
    return hashlib.sha256(token.encode()).digest()
