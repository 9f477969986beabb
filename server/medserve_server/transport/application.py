"""The ASGI application: gRPC where the server that runs it has HTTP trailers, REST everywhere."""

from medserve_server.transport.grpc_adapter import GrpcAdapter
from medserve_server.transport.grpc_response import Send
from medserve_server.transport.http_call import Scope
from medserve_server.transport.open_calls import Receive

_TRAILERS = "http.response.trailers"


class Application:
    """Hands each request to the API that it is for.

    Args:
        grpc: Answers gRPC.
    """

    def __init__(self, grpc: GrpcAdapter) -> None:
        self._grpc = grpc

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers a request, by ASGI."""
        headers = dict(scope["headers"])
        if headers.get(b"content-type", b"").startswith(b"application/grpc") and _TRAILERS in scope["extensions"]:
            await self._grpc(scope, headers, receive, send)
            return
        await send({"type": "http.response.start", "status": 404, "headers": [(b"content-type", b"text/plain")]})
        await send({"type": "http.response.body", "body": b"not found\n"})
