"""The transport of a worker inside Envoy, which accepts the connections."""

import asyncio
import logging
from functools import partial
from typing import Any

from medserve_server.calls.interceptor import CallInterceptor
from medserve_server.calls.open_calls import OpenCalls
from medserve_server.config import Settings
from medserve_server.file_reloader import POLL_INTERVAL, FileReloader
from medserve_server.security.tls import Certificates, read_certificates
from medserve_server.supervise import start_task
from medserve_server.transport.envoy.admin import drain_listeners
from medserve_server.transport.envoy.files import EnvoyFiles
from medserve_server.transport.envoy.process import write_secrets

GOAWAY_SECONDS = 1.0
"""Maximum time in which new calls are still accepted after GOAWAY was sent."""

log = logging.getLogger(__name__)


class EnvoyServer:
    """Manages the certificates and the shutdown of a worker inside Envoy.

    Args:
        settings: port and TLS files.
        files: files of the Envoy process.
        interceptor: interceptor of all calls.
        calls: calls in progress.
        stopping: once set, new calls are refused.
    """

    def __init__(
        self,
        settings: Settings,
        files: EnvoyFiles,
        interceptor: CallInterceptor,
        calls: OpenCalls,
        stopping: asyncio.Event,
    ) -> None:
        self._settings = settings
        self._files = files
        self._interceptor = interceptor
        self._stopping = stopping
        self._calls = calls
        self._certificates = read_certificates(settings)
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> int:
        """Starts monitoring the certificate files, and returns the port, on which Envoy itself listens."""
        _ignore_late_results(asyncio.get_running_loop())
        if self._certificates is not None:
            self._tasks.append(start_task("certificates", partial(self._renew_certificates, self._certificates)))
        return self._settings.port

    async def drain(self, grace: float) -> bool:
        """Sends GOAWAY, then refuses new calls, and waits for accepted calls to finish."""
        try:
            await asyncio.to_thread(drain_listeners, self._files.admin)
        except OSError as error:
            log.warning(
                "cannot tell clients to reconnect elsewhere (GOAWAY), since Envoy is already stopping: %s", error
            )
        loop = asyncio.get_running_loop()
        await self._interceptor.wait_until_quiet(min(GOAWAY_SECONDS, grace))
        self._stopping.set()
        deadline = loop.time() + grace
        while self._calls and loop.time() < deadline:  # noqa: ASYNC110 - calls need not signal their end
            await asyncio.sleep(0.02)
        return not self._calls

    async def close(self) -> None:
        """Cancels all calls."""
        for task in self._tasks:
            task.cancel()
        self._calls.cancel()

    async def _renew_certificates(self, certificates: FileReloader[Certificates]) -> None:
        """Writes the certificates for Envoy whenever they have changed, until cancelled."""
        written = certificates.current()
        while True:
            await asyncio.sleep(POLL_INTERVAL)
            if certificates.current() is not written:
                written = certificates.current()
                write_secrets(self._files, written)


def _ignore_late_results(loop: asyncio.AbstractEventLoop) -> None:
    """Suppresses InvalidStateError where pyvoy sets the result of a future whose call was cancelled.

    pyvoy sets results in bare callbacks, so that the traceback has no frame other than the event loop's.
    """
    report = loop.get_exception_handler()

    def handle(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        error = context.get("exception")
        if isinstance(error, asyncio.InvalidStateError):
            frames = error.__traceback__
            if frames is not None and frames.tb_next is None:
                return
        (report or type(loop).default_exception_handler)(loop, context)

    loop.set_exception_handler(handle)
