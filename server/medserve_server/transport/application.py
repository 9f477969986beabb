"""The ASGI application: serves REST, and gRPC if the ASGI server supports HTTP trailers."""

from medserve_server.http.asgi import Receive, Scope, Send
from medserve_server.rest.application import Rest
from medserve_server.transport.grpc_adapter import GrpcAdapter

_TRAILERS = "http.response.trailers"


class Application:
    """Dispatches requests to gRPC or REST.

    Args:
        grpc: handles gRPC requests.
        rest: handles all other requests.
    """

    def __init__(self, grpc: GrpcAdapter, rest: Rest) -> None:
        self._grpc = grpc
        self._rest = rest

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handles a request (ASGI)."""
        headers = dict(scope["headers"])
        is_grpc = headers.get(b"content-type", b"").startswith(b"application/grpc") or self._grpc.has(scope["path"])
        if is_grpc and _TRAILERS in scope.get("extensions", ()):
            await self._grpc(scope, headers, receive, send)
        else:
            await self._rest(scope, receive, send)
