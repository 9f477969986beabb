"""The grpcio transport: grpcio's own server, available on every platform."""

import asyncio
from collections.abc import Callable
from typing import Any

import grpc
from grpc import aio

from medserve_server.calls.interceptor import CallInterceptor
from medserve_server.config import Settings
from medserve_server.security.limits import connection_limits
from medserve_server.security.tls import Certificates, read_certificates

REFUSE_SECONDS = 1.0
"""Maximum time in which new calls are refused before grpc's own shutdown starts."""


class GrpcioServer:
    """A grpc.aio server on the configured address.

    Args:
        settings: address, limits and TLS files.
        interceptor: interceptor of all calls.
        stopping: once set, new calls are refused.
        add_services: adds all services to a grpcio server.

    Raises:
        SettingsError: a certificate file is missing or invalid.
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
            # Finished calls count until they are deallocated, and a client that uses all streams starts new calls
            # immediately: without room for as many again, grpc refuses most of them.
            ("grpc.http2.max_deallocating_streams", settings.max_connection_streams),
            # Without these, grpc ends calls that wait for the event loop with CANCELLED, which gives clients no reason.
            ("grpc.server.max_pending_requests", 1_000_000),
            ("grpc.server.max_pending_requests_hard_limit", 1_000_000),
            # Only workers share a port: two servers on one port would silently split its connections.
            ("grpc.so_reuseport", int(settings.workers > 1)),
            *connection_limits(settings),
        ]
        # The interceptor limits the calls that it handles. This limits those whose message has not arrived yet.
        self._grpcio = aio.server(
            interceptors=[self._interceptor], options=options, maximum_concurrent_rpcs=8 * settings.max_pending_requests
        )
        add_services(self._grpcio)

    async def start(self) -> int:
        """Starts listening and returns the port.

        Raises:
            OSError: the address is unavailable.
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
        """Waits for accepted calls to finish; returns False if some were still unanswered after `grace` seconds.

        New calls are refused with UNAVAILABLE until none arrives any more or `REFUSE_SECONDS` have passed: a call that
        arrives during grpc's own shutdown ends with CANCELLED, which few clients retry. That shutdown cannot be delayed
        for long, since only it makes clients connect to another server (GOAWAY).
        """
        self._stopping.set()
        await self._interceptor.wait_until_quiet(REFUSE_SECONDS)
        loop = asyncio.get_running_loop()
        started = loop.time()
        await self._grpcio.stop(grace)
        return loop.time() - started < grace

    async def close(self) -> None:
        """Aborts all calls."""
        await self._grpcio.stop(None)


def _credentials(settings: Settings) -> grpc.ServerCredentials | None:
    """Returns the TLS credentials, which follow changes of the certificate files, or None for plaintext.

    Raises:
        SettingsError: a certificate file is missing or invalid.
    """
    certificates = read_certificates(settings)
    if certificates is None:
        return None
    current = certificates.current()

    def changed() -> Any:  # noqa: ANN401 - None for no change, which grpc's type annotations do not allow
        nonlocal current
        previous, current = current, certificates.current()
        return None if current is previous else _configuration(current)

    return grpc.dynamic_ssl_server_credentials(
        _configuration(current), changed, require_client_authentication=settings.tls_client_ca is not None
    )


def _configuration(certificates: Certificates) -> grpc.ServerCertificateConfiguration:
    pair = certificates.key, certificates.certificate
    return grpc.ssl_server_certificate_configuration([pair], certificates.client_ca)
