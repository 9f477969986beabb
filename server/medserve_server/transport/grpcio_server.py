"""gRPC by grpcio's own server, which runs wherever Python does."""

import asyncio
from collections.abc import Callable
from typing import Any

import grpc
from grpc import aio

from medserve_server.calls.interceptor import CallInterceptor
from medserve_server.config import Settings
from medserve_server.security.limits import connection_limits
from medserve_server.security.tls import Certificates, read_certificates

LEAVE_SECONDS = 1.0
"""Longest time in which new calls are refused before grpc's own shutdown begins."""


class GrpcioServer:
    """Listens on the settings' address.

    Args:
        settings: address, limits, and which transport.
        interceptor: of all calls.
        stopping: once set, new calls are refused.
        add_services: adds all services to a grpcio server.

    Raises:
        SettingsError: a file of certificates can't be used.
    """

    def __init__(
        self,
        settings: Settings,
        interceptor: CallInterceptor,
        stopping: asyncio.Event,
        add_services: Callable[[aio.Server], None],
    ) -> None:
        self._settings = settings
        self._stopping = stopping
        self._credentials = _credentials(settings)
        self._interceptor = interceptor
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
            *connection_limits(settings),
        ]
        # The interceptor counts what it answers. This bounds the calls whose message has not come yet.
        self._grpcio = aio.server(
            interceptors=[self._interceptor], options=options, maximum_concurrent_rpcs=8 * settings.max_pending_requests
        )
        add_services(self._grpcio)

    async def start(self) -> int:
        """Begins to listen and returns the port.

        Raises:
            OSError: the address can't be had.
        """
        address = self._settings.address
        try:
            if self._credentials is not None:
                port = self._grpcio.add_secure_port(address, self._credentials)
            else:
                port = self._grpcio.add_insecure_port(address)
            await self._grpcio.start()
        except (RuntimeError, OSError) as error:
            raise OSError(f"cannot listen on {address}; if it is in use, choose another port with --port") from error
        return port

    async def drain(self, grace: float) -> bool:
        """Waits for the calls that were taken; False when `grace` seconds passed with calls unanswered.

        New calls are refused as UNAVAILABLE until none comes any more or a second is over: a call that arrives in the
        moment of grpc's own shutdown is CANCELLED, which few clients retry; and only that shutdown sends clients to
        another server, so it can't be put off for long.
        """
        self._stopping.set()
        await self._interceptor.wait_until_quiet(LEAVE_SECONDS)
        loop = asyncio.get_running_loop()
        started = loop.time()
        await self._grpcio.stop(grace)
        return loop.time() - started < grace

    async def close(self) -> None:
        """Ends all calls at once."""
        await self._grpcio.stop(None)


def _credentials(settings: Settings) -> grpc.ServerCredentials | None:
    """The certificates for new connections, as the files hold them or held them a moment ago; None for plain text.

    Raises:
        SettingsError: a file can't be used.
    """
    certificates = read_certificates(settings)
    if certificates is None:
        return None
    handed_out = certificates.current()

    def changed() -> Any:  # noqa: ANN401 - None for no change, which grpc's types don't know
        nonlocal handed_out
        before, handed_out = handed_out, certificates.current()
        return None if handed_out is before else _configuration(handed_out)

    return grpc.dynamic_ssl_server_credentials(
        _configuration(handed_out), changed, require_client_authentication=settings.tls_client_ca is not None
    )


def _configuration(certificates: Certificates) -> grpc.ServerCertificateConfiguration:
    pair = certificates.key, certificates.certificate
    return grpc.ssl_server_certificate_configuration([pair], certificates.client_ca)
