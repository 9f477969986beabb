"""uvicorn as every port that it serves needs it: with our own socket, and without its logging and signals."""

import logging
import socket
from typing import Any

import uvicorn

from medserve_server.config import host_and_port
from medserve_server.http.asgi import App

BACKLOG = 1024


def listening_socket(host: str, port: int, flag: str, *, backlog: int = BACKLOG, shared: bool = False) -> socket.socket:
    """Returns a socket that listens.

    Args:
        host: Address or name.
        port: 0 takes a free one.
        flag: That chooses another port.
        backlog: Connections that wait to be accepted.
        shared: Whether other processes may listen there too.

    Raises:
        OSError: The address can't be had; the message names it and the flag.
    """
    try:
        family, kind, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, kind)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if shared:
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            listener.bind(address)
            listener.listen(backlog)
        except OSError:
            listener.close()
            raise
    except OSError as error:
        raise OSError(
            f"cannot listen on {host_and_port(host, port)}; if it is in use, choose another port with {flag}"
        ) from error
    return listener


def quiet_config(app: App, **options: Any) -> uvicorn.Config:  # noqa: ANN401 - of uvicorn.Config
    """Returns a configuration of uvicorn that leaves logging, signals and processes to the server.

    Args:
        app: ASGI application, which reports its own failures.
        options: Further ones of `uvicorn.Config`.
    """
    logging.getLogger("uvicorn.access").propagate = False  # uvicorn formats each request where anyone listens
    config = uvicorn.Config(
        app,
        interface="asgi3",
        loop="asyncio",
        ws="none",
        lifespan="off",
        workers=1,
        log_config=None,
        log_level="critical",  # what it logs is up to its clients
        access_log=False,
        proxy_headers=False,
        server_header=False,
        date_header=False,
        **options,
    )
    config.load()
    return config
