"""Binds gRPC servers to the loopback interface; Python imports this module at startup if it is on PYTHONPATH.

KServe and Ray always listen on [::], but a benchmark should not open ports to the network.
"""

from typing import Any

from grpc import aio

listen = aio.Server.add_insecure_port


def listen_on_loopback(server: Any, address: str) -> int:  # noqa: ANN401 - grpc's server, of any version
    """Adds the port with [::] replaced by 127.0.0.1."""
    return listen(server, address.replace("[::]", "127.0.0.1"))


aio.Server.add_insecure_port = listen_on_loopback  # type: ignore[assignment]
