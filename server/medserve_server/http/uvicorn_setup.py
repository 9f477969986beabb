"""Common configuration of uvicorn for all HTTP ports: our own socket, no logging and no signal handlers."""

import logging
import socket
from typing import Any

import uvicorn

from medserve_server.config import host_and_port
from medserve_server.http.asgi import App

BACKLOG = 1024


def listening_socket(host: str, port: int, flag: str, *, backlog: int = BACKLOG, shared: bool = False) -> socket.socket:
    """Returns a listening socket.

    Args:
        host: IP address or host name.
        port: port to listen on; 0 picks a free port.
        flag: command-line flag of the port, for the error message.
        backlog: maximum number of connections that wait to be accepted.
        shared: whether other processes may listen on the same port (SO_REUSEPORT).

    Raises:
        OSError: the address is unavailable; the message names it and the flag.
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
    """Returns a uvicorn configuration that leaves logging, signals and processes to the server.

    Args:
        app: ASGI application, which reports its own failures.
        options: further options of `uvicorn.Config`.
    """
    logging.getLogger("uvicorn.access").propagate = False  # otherwise, uvicorn formats a log record for each request
    config = uvicorn.Config(
        app,
        interface="asgi3",
        loop="asyncio",
        ws="none",
        lifespan="off",
        workers=1,
        log_config=None,
        log_level="critical",  # clients can trigger its other messages at will
        access_log=False,
        proxy_headers=False,
        server_header=False,
        date_header=False,
        **options,
    )
    config.load()
    return config
