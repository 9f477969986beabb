"""Cross-origin resource sharing (CORS).

https://fetch.spec.whatwg.org/#http-cors-protocol
"""

from collections.abc import Awaitable, Collection

from medserve_server.http.asgi import App, Event, Receive, Scope, Send

Headers = list[tuple[bytes, bytes]]

MAX_AGE_SECONDS = 7200
"""Time that browsers may cache the response to a preflight request; no browser caches it for longer."""
_EXPOSED = b"grpc-status, grpc-message, grpc-status-details-bin, inference-header-content-length"
_METHODS = b"GET, HEAD, POST"


def with_cors(app: App, origins: Collection[str]) -> App:
    """Returns an application that adds CORS headers for the given origins to the responses of another one.

    Args:
        app: application that serves REST and gRPC-Web.
        origins: allowed origins as browsers send them, `https://HOST` or `https://HOST:PORT`; `*` allows any origin. If
            empty, the application is returned unchanged.
    """
    if not origins:
        return app
    allowed = frozenset(origin.encode() for origin in origins)
    any_origin = b"*" in allowed

    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        headers = dict(scope["headers"])
        origin = headers.get(b"origin")
        if origin is None or not (any_origin or origin in allowed):
            await app(scope, receive, send if any_origin else _with_headers([(b"vary", b"Origin")], send))
            return
        cors: Headers = [(b"access-control-allow-origin", b"*" if any_origin else origin)]
        if not any_origin:
            cors.append((b"vary", b"Origin"))
        if scope["method"] == "OPTIONS" and b"access-control-request-method" in headers:
            await _preflight(headers.get(b"access-control-request-headers", b""), cors, send)
            return
        await app(scope, receive, _with_headers([*cors, (b"access-control-expose-headers", _EXPOSED)], send))

    return answer


def _with_headers(headers: Headers, send: Send) -> Send:
    def send_with_headers(event: Event) -> Awaitable[None]:
        if event["type"] == "http.response.start":
            event = {**event, "headers": [*event["headers"], *headers]}
        return send(event)

    return send_with_headers


async def _preflight(request_headers: bytes, cors: Headers, send: Send) -> None:
    headers = [
        *cors,
        (b"access-control-allow-methods", _METHODS),
        # Echoes the requested headers: `*` would not include `authorization`.
        *([(b"access-control-allow-headers", request_headers)] if request_headers else []),
        (b"access-control-max-age", str(MAX_AGE_SECONDS).encode()),
    ]
    await send({"type": "http.response.start", "status": 204, "headers": headers})
    await send({"type": "http.response.body", "body": b"", "more_body": False})
