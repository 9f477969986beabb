"""A port for plain HTTP pages, served by uvicorn in a separate thread with its own event loop.

uvicorn limits neither the number of connections nor the time in which a request has to arrive. Here, a connection
serves one request and is closed after `CONNECTION_SECONDS` in any case. This covers clients that stay silent, that send
their headers byte by byte, and that do not read the response.
"""

import asyncio
import socket
import struct
from collections.abc import Callable
from typing import Any

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.server import ServerState

from medserve_server.http.asgi import App
from medserve_server.http.uvicorn_setup import listening_socket, quiet_config
from medserve_server.supervise import call_in_loop_after, start_thread, watch

MAX_CONNECTIONS = 100
"""Maximum open connections; further ones are closed immediately."""
CONNECTION_SECONDS = 10.0
"""Maximum lifetime of a connection."""
MAX_HEADER_BYTES = 8192
STOP_SECONDS = 1
"""Time that responses in progress have to finish when the server stops."""


def serve_pages(where: str, app: App, host: str, port: int, flag: str) -> tuple[int, Callable[[], None]]:
    """Serves an application in a separate thread.

    Args:
        where: name of the thread and component name for `report`.
        app: ASGI application; must not block.
        host: address to listen on.
        port: port to listen on; 0 picks a free port.
        flag: command-line flag of the port, for the error message.

    Returns:
        The port, and a function that stops serving.

    Raises:
        OSError: the address is unavailable; the message names it and the flag.
        ThreadStartError: the thread cannot be started.
    """
    # Bound here, so that an error is raised before the thread is started.
    listener = listening_socket(host, port, flag, backlog=MAX_CONNECTIONS)
    config = quiet_config(
        app,
        http=_Connection,
        headers=[("Connection", "close")],
        backlog=MAX_CONNECTIONS,
        timeout_graceful_shutdown=STOP_SECONDS,
        h11_max_incomplete_event_size=MAX_HEADER_BYTES,
    )
    server = uvicorn.Server(config)
    thread = start_thread(where, lambda: asyncio.run(_serve(server, listener)), name=where, restart=True)

    def stop() -> None:
        server.should_exit = True
        thread.join(2 * STOP_SECONDS)
        listener.close()

    return listener.getsockname()[1], stop


async def _serve(server: uvicorn.Server, listener: socket.socket) -> None:
    watch(asyncio.get_running_loop())
    server.server_state = (
        ServerState()
    )  # after a failure, the previous state refers to connections of a closed event loop
    # A duplicate, since uvicorn closes the socket and a restart after a failure needs it.
    await server.serve([listener.dup()])
    for connection in list(server.server_state.connections):
        if isinstance(connection, _Connection):  # always true, for the type checker
            connection.abort()
    await asyncio.sleep(0)


class _Connection(H11Protocol):
    """A connection that serves one request within `CONNECTION_SECONDS`; at most `MAX_CONNECTIONS` are open."""

    def __init__(self, *arguments: Any, **options: Any) -> None:  # noqa: ANN401 - uvicorn's
        super().__init__(*arguments, **options)
        self._end: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as H11Protocol's
        if len(self.connections) >= MAX_CONNECTIONS:
            transport.abort()
            return
        super().connection_made(transport)
        self._end = call_in_loop_after(self.loop, CONNECTION_SECONDS, self.abort)

    def abort(self) -> None:
        """Aborts the connection."""
        # Discards unsent data; otherwise, the kernel would keep trying to send it for minutes.
        connection: socket.socket = self.transport.get_extra_info("socket")
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._end is not None:
            self._end.cancel()
            super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if not self.cycle:  # data after the first request is discarded
            super().data_received(data)

    def send_400_response(self, msg: str) -> None:
        if not self.cycle:
            super().send_400_response(msg)
        else:  # the body of the request is malformed
            self.transport.abort()
