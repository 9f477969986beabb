"""The gRPC server of a process: grpcio alone, or native in front of it, by one face."""

import asyncio
import shutil
import tempfile
from collections.abc import Callable, Sequence
from typing import Any

from grpc import aio

from medserve_server.auth import Tokens
from medserve_server.config import Settings
from medserve_server.decoders import Decoders
from medserve_server.limits import CallLimits, connection_limits
from medserve_server.metrics import Metrics
from medserve_server.services.api import ModelApi
from medserve_server.supervise import ThreadStartError
from medserve_server.tls import server_credentials
from medserve_server.trail import Observer
from medserve_server.transport.interceptor import CallInterceptor


class Transport:
    """Listens on the settings' address.

    Args:
        settings: address, limits, and which transport.
        metrics: where calls are counted.
        stopping: once set, new calls are refused.
        decoders: threads for requests that take long to read.
        apis: what native serves itself.
        add_services: adds all services to a grpcio server, or to what has its methods for that.
        observers: who is told of finished calls.

    Raises:
        SettingsError: a file of certificates or tokens can't be used.
    """

    def __init__(
        self,
        settings: Settings,
        metrics: Metrics,
        stopping: asyncio.Event,
        decoders: Decoders,
        apis: Sequence[ModelApi[Any, Any, Any]],
        add_services: Callable[[Any], None],
        observers: Sequence[Observer],
    ) -> None:
        self._settings = settings
        self._credentials = server_credentials(settings)
        tokens = Tokens(settings.tokens) if settings.tokens is not None else None
        limits = CallLimits(settings.max_pending_requests, settings.max_client_calls, settings.max_client_rate)
        self.interceptor = CallInterceptor(metrics, stopping, limits, tokens, observers)
        add_services(self.interceptor)
        # `auto` asks for a limit on message sizes, which native can't keep: it holds a message before it counts it.
        self.native = settings.transport == "native"
        limit = settings.max_message_mib * 1024 * 1024
        options = [
            ("grpc.max_receive_message_length", limit),
            ("grpc.max_send_message_length", limit),
            ("grpc.max_concurrent_streams", settings.max_connection_streams),
            # Calls that have ended count until they are cleared away, and a client that fills its connection sends the
            # next ones at once: without room for as many again, grpc refuses most of these.
            ("grpc.http2.max_deallocating_streams", settings.max_connection_streams),
            # Without these, grpc drops calls that wait for the event loop as CANCELLED, which says nothing.
            ("grpc.server.max_pending_requests", 1_000_000),
            ("grpc.server.max_pending_requests_hard_limit", 1_000_000),
            # Only workers share a port: two servers on one would split its connections without a word.
            ("grpc.so_reuseport", int(settings.workers > 1)),
        ]
        if not self.native:  # behind native there is only native
            options += connection_limits(settings)
        # The interceptor counts what it answers. This bounds the calls whose message has not come yet.
        self._grpcio = aio.server(
            interceptors=[self.interceptor], options=options, maximum_concurrent_rpcs=8 * settings.max_pending_requests
        )
        add_services(self._grpcio)
        if self.native:
            from medserve_server.transport.native import NativeFront  # noqa: PLC0415 - of the extra `fast`

            self._folder = tempfile.mkdtemp(prefix="medserve-")
            fallback = f"{self._folder}/grpcio"
            self._front = NativeFront(apis, settings, metrics, stopping, decoders, fallback, limits, tokens, observers)

    async def start(self) -> int:
        """Begins to listen and returns the port.

        Raises:
            OSError: the address can't be had.
        """
        address = f"unix:{self._folder}/grpcio" if self.native else self._settings.address
        try:
            if self._credentials is not None:
                port = self._grpcio.add_secure_port(address, self._credentials)
            else:
                port = self._grpcio.add_insecure_port(address)
            if self.native:
                self._front.bind()
            await self._grpcio.start()
            return self._front.start() if self.native else port
        except ThreadStartError:
            raise
        except (RuntimeError, OSError) as error:
            raise OSError(f"can't listen on {self._settings.address}; is it taken? --port chooses another") from error

    def expect_models(self, count: int) -> None:
        """Prepares for that many models that run at the same time."""
        if self.native:
            self._front.set_threads(count + 1)  # one always listens

    async def drain(self, grace: float) -> bool:
        """Waits for the calls that were taken; False when `grace` seconds passed with calls unanswered.

        To be called when `stopping` is set. New calls are refused as UNAVAILABLE until none comes any more or a second
        is over: a call that arrives in the moment of grpc's own shutdown is CANCELLED, which few clients retry; and
        only that shutdown sends clients to another server, so it can't be put off for long.
        """
        for _ in range(20):
            await asyncio.sleep(0.05)
            if self.interceptor.quiet_seconds > 0.2:
                break
        loop = asyncio.get_running_loop()
        started = loop.time()
        answered = True
        if self.native:
            answered = await asyncio.to_thread(self._front.wait_until_answered, grace)
            await asyncio.to_thread(self._front.close)
        await self._grpcio.stop(grace)
        return answered and loop.time() - started < grace

    async def close(self) -> None:
        """Ends all calls at once."""
        if self.native:
            await asyncio.to_thread(self._front.close)
            shutil.rmtree(self._folder, ignore_errors=True)
        await self._grpcio.stop(None)

    def join(self) -> None:
        """Waits for the threads that run models; to be called when nothing waits for one any more."""
        if self.native:
            self._front.join()
