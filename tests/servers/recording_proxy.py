"""A proxy that records requests without connecting anywhere."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from waiting import PATIENCE

VARIABLES = ("grpc_proxy", "http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY")
"""Environment variables that name a proxy; gRPC for Python reads the first three."""


class RecordingProxy:
    """Answers every request with 502 and records its first line."""

    def __init__(self, listener: socket.socket) -> None:
        self._listener = listener
        self.requests: list[str] = []

    @property
    def address(self) -> str:
        host, port = self._listener.getsockname()
        return f"{host}:{port}"

    def environment(self) -> dict[str, str]:
        """Returns an environment in which every proxy variable names this proxy."""
        url = f"http://{self.address}"
        # In addition to the usual ones, gRPC supports a proxy for a list of addresses.
        every_address = {"GRPC_ADDRESS_HTTP_PROXY_ENABLED_ADDRESSES": "0.0.0.0/0,::/0"}
        return dict.fromkeys(VARIABLES, url) | {"GRPC_ADDRESS_HTTP_PROXY": self.address} | every_address

    def serve(self) -> None:
        with suppress(OSError):  # the listener is closed
            while True:
                connection, _ = self._listener.accept()
                with connection, suppress(OSError):
                    connection.settimeout(PATIENCE)
                    self.requests.append(connection.makefile("rb").readline().decode("latin-1").strip())
                    connection.sendall(b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n")


@contextmanager
def recording_proxy() -> Iterator[RecordingProxy]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        proxy = RecordingProxy(listener)
        thread = threading.Thread(target=proxy.serve)
        thread.start()
        yield proxy
        listener.shutdown(socket.SHUT_RDWR)
    thread.join()
