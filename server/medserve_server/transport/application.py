"""The ASGI application: gRPC where the server that runs it has HTTP trailers, REST everywhere."""

from medserve_server.http.asgi import Receive, Scope, Send
from medserve_server.rest.application import Rest
from medserve_server.transport.grpc_adapter import GrpcAdapter

_TRAILERS = "http.response.trailers"


class Application:
    """Hands each request to the API that it is for.

    Args:
        grpc: Answers gRPC.
        rest: Answers everything else.
    """

    def __init__(self, grpc: GrpcAdapter, rest: Rest) -> None:
        self._grpc = grpc
        self._rest = rest

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers a request, by ASGI."""
        headers = dict(scope["headers"])
        is_grpc = headers.get(b"content-type", b"").startswith(b"application/grpc") or self._grpc.has(scope["path"])
        if is_grpc and _TRAILERS in scope.get("extensions", ()):
            await self._grpc(scope, headers, receive, send)
        else:
            await self._rest(scope, receive, send)
