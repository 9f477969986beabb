"""REST with the grpcio transport: uvicorn's HTTP protocol in the event loop of the services.

uvicorn limits neither the number of connections nor the time in which a request has to arrive; this module limits both.
"""

import asyncio
import socket
import ssl

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.server import ServerState

from medserve_server.calls.open_calls import BODY_RATE, BODY_SECONDS
from medserve_server.config import Settings
from medserve_server.http.asgi import App
from medserve_server.http.uvicorn_setup import listening_socket, quiet_config
from medserve_server.supervise import call_in_loop_after

RESPONSE_SECONDS = 60.0
"""Time in which a client has to read a response; slower clients are disconnected."""
REFUSAL_SECONDS = 10.0
"""Additional time in which the application can refuse a late body, before the connection is closed."""
HEADER_SECONDS = 10.0
"""Time from the start of a connection, or the first byte after a response, to the end of the request's headers."""
MAX_HEADER_BYTES = 32 * 1024


class HttpServer:
    """Serves an ASGI application over HTTP/1.1.

    Args:
        app: ASGI application, which reports its own failures.
        settings: address and connection limits.
        tls: TLS context, or None for plaintext.
    """

    def __init__(self, app: App, settings: Settings, tls: ssl.SSLContext | None) -> None:
        self._config = quiet_config(
            app, timeout_keep_alive=settings.max_connection_idle, h11_max_incomplete_event_size=MAX_HEADER_BYTES
        )
        self._settings = settings
        self._state = ServerState()
        self._tls = tls
        self._listener: socket.socket | None = None
        self._server: asyncio.Server | None = None

    async def start(self) -> int:
        """Starts serving and returns the port.

        Raises:
            OSError: the address is unavailable.
        """
        settings = self._settings
        listener = self._listener = listening_socket(
            settings.host, settings.http_port, "--http-port", shared=settings.workers > 1
        )
        self._server = await asyncio.get_running_loop().create_server(
            lambda: _Connection(self._config, self._state, settings.max_connections),
            sock=listener,
            ssl=self._tls,
            ssl_handshake_timeout=HEADER_SECONDS if self._tls is not None else None,
        )
        port: int = listener.getsockname()[1]
        return port

    async def drain(self, grace: float) -> bool:
        """Stops accepting connections, and waits for accepted requests to finish.

        Args:
            grace: maximum time to wait, in seconds.

        Returns:
            False if requests were still unanswered after that time.
        """
        if self._listener is not None:
            # Connections that were just accepted get their transports in this iteration of the event loop. If the
            # server was closed earlier, asyncio would leave them open and unanswered.
            asyncio.get_running_loop().remove_reader(self._listener)
            await asyncio.sleep(0)
        self._stop_listening()
        for connection in list(self._state.connections):
            connection.shutdown()
        tasks = set(self._state.tasks)
        if tasks:
            _, tasks = await asyncio.wait(tasks, timeout=grace)
        return not tasks

    async def close(self) -> None:
        """Aborts all connections."""
        self._stop_listening()
        for connection in list(self._state.connections):
            connection.transport.abort()
        for task in list(self._state.tasks):
            task.cancel()
        await asyncio.sleep(0)

    def _stop_listening(self) -> None:
        if self._server is not None:
            self._server.close()


class _Connection(H11Protocol):
    """A connection with time limits for its requests; their number is limited too."""

    def __init__(self, config: uvicorn.Config, state: ServerState, max_connections: int) -> None:
        super().__init__(config, state, {})
        self._max_connections = max_connections
        self._timeout: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as H11Protocol's
        self.transport = transport
        if len(self.connections) >= self._max_connections:
            transport.abort()
            return
        super().connection_made(transport)
        self._set_timeout(HEADER_SECONDS)

    def connection_lost(self, exc: Exception | None) -> None:
        self._set_timeout(None)
        if self.flow is not None:  # None: refused, since there were too many connections
            super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self.transport.is_closing():
            return
        if self._timeout is None and (self.cycle is None or self.cycle.response_complete):
            self._set_timeout(HEADER_SECONDS)
        elif self._timeout is not None and self.cycle is not None and self.cycle.more_body:
            self._set_timeout(self._timeout.when() - self.loop.time() + len(data) / BODY_RATE)
        super().data_received(data)

    def handle_events(self) -> None:
        previous = self.cycle
        super().handle_events()
        if self.cycle is not None and not self.cycle.more_body:
            self._set_timeout(None)
        elif self.cycle is not previous:
            self._set_timeout(BODY_SECONDS + REFUSAL_SECONDS + len(self.cycle.body) / BODY_RATE)

    def pause_writing(self) -> None:
        super().pause_writing()
        self._set_timeout(RESPONSE_SECONDS)

    def resume_writing(self) -> None:
        super().resume_writing()
        self._set_timeout(None)

    def timeout_keep_alive_handler(self) -> None:
        super().timeout_keep_alive_handler()
        self._set_timeout(HEADER_SECONDS)  # for data that the client has not read yet

    def _set_timeout(self, seconds: float | None) -> None:
        """Schedules an abort of the connection after `seconds`; None cancels it."""
        if self._timeout is not None:
            self._timeout.cancel()
        self._timeout = call_in_loop_after(self.loop, seconds, self.transport.abort) if seconds is not None else None
