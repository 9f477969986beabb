"""Cross-origin resource sharing: which other sites' pages a browser lets call the server.

https://fetch.spec.whatwg.org/#http-cors-protocol
"""

from collections.abc import Awaitable, Collection

from medserve_server.http.asgi import App, Event, Receive, Scope, Send

Headers = list[tuple[bytes, bytes]]

MAX_AGE_SECONDS = 7200
"""That a browser may remember the answer to a preflight request; none remembers it for longer."""
_EXPOSED = b"grpc-status, grpc-message, grpc-status-details-bin, inference-header-content-length"
_METHODS = b"GET, HEAD, POST"


def with_cors(app: App, origins: Collection[str]) -> App:
    """Returns an application whose responses the pages of some origins may read.

    Args:
        app: REST and gRPC-Web.
        origins: As browsers send them, `https://HOST` or `https://HOST:PORT`; `*` for every one. Without any, the
            application is returned as it is.
    """
    if not origins:
        return app
    allowed = frozenset(origin.encode() for origin in origins)
    any_origin = b"*" in allowed

    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        headers = dict(scope["headers"])
        origin = headers.get(b"origin")
        if origin is None or not (any_origin or origin in allowed):
            await app(scope, receive, send if any_origin else _adding([(b"vary", b"Origin")], send))
            return
        cors: Headers = [(b"access-control-allow-origin", b"*" if any_origin else origin)]
        if not any_origin:
            cors.append((b"vary", b"Origin"))
        if scope["method"] == "OPTIONS" and b"access-control-request-method" in headers:
            await _preflight(headers.get(b"access-control-request-headers", b""), cors, send)
            return
        await app(scope, receive, _adding([*cors, (b"access-control-expose-headers", _EXPOSED)], send))

    return answer


def _adding(headers: Headers, send: Send) -> Send:
    def send_with_headers(event: Event) -> Awaitable[None]:
        if event["type"] == "http.response.start":
            event = {**event, "headers": [*event["headers"], *headers]}
        return send(event)

    return send_with_headers


async def _preflight(request_headers: bytes, cors: Headers, send: Send) -> None:
    headers = [
        *cors,
        (b"access-control-allow-methods", _METHODS),
        # Whatever the page wants to send: `*` would leave `authorization` out.
        *([(b"access-control-allow-headers", request_headers)] if request_headers else []),
        (b"access-control-max-age", str(MAX_AGE_SECONDS).encode()),
    ]
    await send({"type": "http.response.start", "status": 204, "headers": headers})
    await send({"type": "http.response.body", "body": b"", "more_body": False})
