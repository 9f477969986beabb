"""uvicorn in the event loop of the services, for REST where Envoy does not run.

uvicorn bounds neither the number of connections nor the time that a request may take to arrive; both are bounded here.
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
"""For a response to be read: slower clients are cut off."""
REFUSAL_SECONDS = 10.0
"""In which the application refuses a body that is late. One that it does not read is cut off then."""
HEADER_SECONDS = 10.0
"""From the start of a connection, or its first byte after a response, to the end of a request's header."""
MAX_HEADER_BYTES = 32 * 1024


class HttpServer:
    """Serves an ASGI application over HTTP/1.1.

    Args:
        app: The application, which reports its own failures.
        settings: Address, and limits on connections.
        tls: What connections are encrypted with; None: nothing.
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
        """Begins to serve and returns the port.

        Raises:
            OSError: The address can't be had.
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
        """Accepts no more connections, and waits for the requests that were taken.

        Args:
            grace: Seconds that they get.

        Returns:
            False when the time passed with requests unanswered.
        """
        if self._listener is not None:
            # Connections that were accepted just now get their transports in this turn of the loop. Those without one
            # when the server is closed, asyncio leaves open and unanswered.
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
        """Ends all connections at once."""
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
    """A connection whose requests arrive in time, one of a bounded number."""

    def __init__(self, config: uvicorn.Config, state: ServerState, max_connections: int) -> None:
        super().__init__(config, state, {})
        self._max_connections = max_connections
        self._limit: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as H11Protocol's
        self.transport = transport
        if len(self.connections) >= self._max_connections:
            transport.abort()
            return
        super().connection_made(transport)
        self._limit_to(HEADER_SECONDS)

    def connection_lost(self, exc: Exception | None) -> None:
        self._limit_to(None)
        if self.flow is not None:  # None: one connection too many
            super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self.transport.is_closing():
            return
        if self._limit is None and (self.cycle is None or self.cycle.response_complete):
            self._limit_to(HEADER_SECONDS)
        elif self._limit is not None and self.cycle is not None and self.cycle.more_body:
            self._limit_to(self._limit.when() - self.loop.time() + len(data) / BODY_RATE)
        super().data_received(data)

    def handle_events(self) -> None:
        before = self.cycle
        super().handle_events()
        if self.cycle is not None and not self.cycle.more_body:
            self._limit_to(None)
        elif self.cycle is not before:
            self._limit_to(BODY_SECONDS + REFUSAL_SECONDS + len(self.cycle.body) / BODY_RATE)

    def pause_writing(self) -> None:
        super().pause_writing()
        self._limit_to(RESPONSE_SECONDS)

    def resume_writing(self) -> None:
        super().resume_writing()
        self._limit_to(None)

    def timeout_keep_alive_handler(self) -> None:
        super().timeout_keep_alive_handler()
        self._limit_to(HEADER_SECONDS)  # for what the client has not read yet

    def _limit_to(self, seconds: float | None) -> None:
        """Cuts the connection off after some time; None: not at all."""
        if self._limit is not None:
            self._limit.cancel()
        self._limit = call_in_loop_after(self.loop, seconds, self.transport.abort) if seconds is not None else None
