"""The transport of a worker that runs in Envoy: Envoy listens, this answers."""

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

LEAVE_SECONDS = 1.0
"""Longest time in which clients are told to go elsewhere and are answered all the same."""

log = logging.getLogger(__name__)


class EnvoyServer:
    """Answers what Envoy passes on.

    Args:
        settings: port and limits.
        files: of this Envoy.
        interceptor: of all calls.
        calls: those under way.
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
        """Watches the certificates; Envoy listens by itself."""
        _expect_late_results(asyncio.get_running_loop())
        if self._certificates is not None:
            self._tasks.append(start_task("certificates", partial(self._renew, self._certificates)))
        return self._settings.port

    async def drain(self, grace: float) -> bool:
        """Sends clients elsewhere, refuses new calls after that, and waits for those that were taken."""
        try:
            await asyncio.to_thread(drain_listeners, self._files.admin)
        except OSError as error:
            log.warning("Envoy was asked to stop as well and tells no client to go elsewhere: %s", error)
        loop = asyncio.get_running_loop()
        await self._interceptor.wait_until_quiet(min(LEAVE_SECONDS, grace))
        self._stopping.set()
        end = loop.time() + grace
        while self._calls and loop.time() < end:  # noqa: ASYNC110 - so that no call has to tell of its end
            await asyncio.sleep(0.02)
        return not self._calls

    async def close(self) -> None:
        """Ends all calls at once."""
        for task in self._tasks:
            task.cancel()
        self._calls.cancel()

    async def _renew(self, certificates: FileReloader[Certificates]) -> None:
        """Hands the certificates to Envoy whenever they have changed, until cancelled."""
        handed_out = certificates.current()
        while True:
            await asyncio.sleep(POLL_INTERVAL)
            if certificates.current() is not handed_out:
                handed_out = certificates.current()
                write_secrets(self._files, handed_out)


def _expect_late_results(loop: asyncio.AbstractEventLoop) -> None:
    """Keeps quiet about results that pyvoy sets in futures of calls that were cancelled meanwhile.

    It does so in bare callbacks, where the failure has no frame but the event loop's own.
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
