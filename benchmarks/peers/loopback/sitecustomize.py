"""Python imports this at its start where this folder is on PYTHONPATH: gRPC servers then stay on loopback.

KServe and Ray listen on [::] and have no setting for it; a benchmark should open no port to the network.
"""

from typing import Any

from grpc import aio

listen = aio.Server.add_insecure_port


def listen_on_loopback(server: Any, address: str) -> int:  # noqa: ANN401 - grpc's server, whichever version
    """Replaces [::]."""
    return listen(server, address.replace("[::]", "127.0.0.1"))


aio.Server.add_insecure_port = listen_on_loopback  # type: ignore[assignment]
