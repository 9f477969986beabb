"""The gRPC server: an address, its limits, and the servicers on it."""

from collections.abc import Sequence

from grpc import aio

from medserve_server.config import Settings


def make_server(settings: Settings, interceptors: Sequence[aio.ServerInterceptor]) -> aio.Server:
    """A server without servicers, not started."""
    limit = settings.max_message_mib * 1024 * 1024
    options = [
        ("grpc.max_receive_message_length", limit),
        ("grpc.max_send_message_length", limit),
        # Two servers on one port would split its connections without a word.
        ("grpc.so_reuseport", 0),
    ]
    return aio.server(interceptors=list(interceptors), options=options)


def listen(server: aio.Server, settings: Settings) -> int:
    """Takes the address and returns the port.

    Raises:
        OSError: it can't be had.
    """
    address = f"[{settings.host}]" if ":" in settings.host else settings.host
    try:
        return server.add_insecure_port(f"{address}:{settings.port}")
    except RuntimeError as error:
        raise OSError(f"can't listen on {address}:{settings.port}; is it taken? --port chooses another") from error
