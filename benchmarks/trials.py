"""Starts a server, applies each load in turn, and stops it."""

import socket
import urllib.request
from collections.abc import Iterator, Mapping, Sequence

import grpc

from benchmarks import requests
from benchmarks.measure import Outcome, Shape, measure
from benchmarks.processes import running
from benchmarks.servers import CERTIFICATE, ROOT, Server
from medserve_client.loadtest import LoadError

LOGS = ROOT / "build" / "benchmarks"


def trial(
    server: Server,
    shapes: Sequence[Shape],
    seconds: float,
    warmup: float,
    overrides: Mapping[str, str] | None = None,
) -> Iterator[tuple[Shape, Outcome | str]]:
    """Yields each load with its outcome, or with the reason of its failure.

    Raises:
        RuntimeError: The server did not start.
    """
    port = free_port()
    command, environment = server.start_with(port, overrides)
    LOGS.mkdir(parents=True, exist_ok=True)
    log = LOGS / f"{server.name.replace(' ', '-')}.log"
    with running(command, environment, log, lambda: answers(server, port), server.patience) as started:
        for shape in shapes:
            if shape.stream and not server.streams:
                continue
            try:
                yield shape, measure(server, port, started, shape, seconds, warmup)
            except (RuntimeError, LoadError, OSError) as error:
                yield shape, str(error) or type(error).__name__


def answers(server: Server, port: int) -> bool:
    """Returns whether the server answers a request for one image."""
    payload = requests.encode(requests.image_batches(1)[0], server.protocol)
    try:
        if server.protocol == "grpc":
            with _channel(server, port) as channel:
                call: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(requests.UNARY)
                call(payload, timeout=2)
            return True
        headers = {"Content-Type": requests.CONTENT_TYPES[server.protocol]}
        request = urllib.request.Request(f"http://127.0.0.1:{port}{server.path}", payload, headers)
        with urllib.request.urlopen(request, timeout=2) as response:  # noqa: S310 - it is http
            return bool(response.status == 200)
    except (grpc.RpcError, OSError):
        return False


def _channel(server: Server, port: int) -> grpc.Channel:
    if not server.tls:
        return grpc.insecure_channel(f"127.0.0.1:{port}")
    return grpc.secure_channel(f"127.0.0.1:{port}", grpc.ssl_channel_credentials(CERTIFICATE.read_bytes()))


def free_port() -> int:
    """Returns a free port that is followed by two more free ports, for servers that need several."""
    while True:
        with socket.socket() as first, socket.socket() as second, socket.socket() as third:
            first.bind(("127.0.0.1", 0))
            port: int = first.getsockname()[1]
            try:
                second.bind(("127.0.0.1", port + 1))
                third.bind(("127.0.0.1", port + 2))
            except (OSError, OverflowError):
                continue
            return port
