"""A port for plain HTTP pages, served by uvicorn from a thread and an event loop of its own.

uvicorn bounds neither the number of connections nor the time that a request may take to arrive. Here, a connection
serves one request and is closed after `CONNECTION_SECONDS` whatever its client does, so that none has to be bounded in
any other way: not one that is silent, that sends its header byte by byte, or that does not read its answer.
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
"""At once; one more is closed unread."""
CONNECTION_SECONDS = 10.0
"""From the start of a connection to its end, at most."""
MAX_HEADER_BYTES = 8192
STOP_SECONDS = 1
"""That responses under way get when the server stops."""


def serve_pages(where: str, app: App, host: str, port: int, flag: str) -> tuple[int, Callable[[], None]]:
    """Serves an application from a thread of its own.

    Args:
        where: name of the thread, and for `report`.
        app: must not block.
        host: address to listen on.
        port: 0 takes a free one.
        flag: that chooses another port.

    Returns:
        The port, and a function that stops serving.

    Raises:
        OSError: the address can't be had; the message names it and the flag.
        ThreadStartError: the thread can't be started.
    """
    # Here, so that whatever prevents it is known before the thread is started.
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
    server.server_state = ServerState()  # after a failure, the one before has connections of a loop that is gone
    # uvicorn closes what it is given, which has to outlive a failure.
    await server.serve([listener.dup()])
    for connection in list(server.server_state.connections):
        if isinstance(connection, _Connection):  # as all are
            connection.cut()
    await asyncio.sleep(0)


class _Connection(H11Protocol):
    """A connection that serves one request within `CONNECTION_SECONDS`, one of at most `MAX_CONNECTIONS`."""

    def __init__(self, *arguments: Any, **options: Any) -> None:  # noqa: ANN401 - uvicorn's
        super().__init__(*arguments, **options)
        self._end: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as H11Protocol's
        if len(self.connections) >= MAX_CONNECTIONS:
            transport.abort()
            return
        super().connection_made(transport)
        self._end = call_in_loop_after(self.loop, CONNECTION_SECONDS, self.cut)

    def cut(self) -> None:
        """Ends the connection at once."""
        # Else the system keeps what the client has not read, and tries for minutes to send it.
        connection: socket.socket = self.transport.get_extra_info("socket")
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._end is not None:
            self._end.cancel()
            super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if not self.cycle:  # what follows a request is dropped unread
            super().data_received(data)

    def send_400_response(self, msg: str) -> None:
        if not self.cycle:
            super().send_400_response(msg)
        else:  # the body that came along with a request is malformed
            self.transport.abort()
