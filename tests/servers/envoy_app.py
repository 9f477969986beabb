"""An ASGI application for Envoy: gRPC echo, errors of every kind, and the Open Inference Protocol."""

import inspect

from servers import oip_app
from servers.oip_app import Receive, Scope, Send

START = {
    "type": "http.response.start",
    "status": 200,
    "headers": [(b"content-type", b"application/grpc")],
    "trailers": True,
}
TRAILERS = {"type": "http.response.trailers", "headers": [(b"grpc-status", b"0")], "more_trailers": False}


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    """Echoes messages on `/t.T/Echo`; `/t.T/Refuse` and `/http/CODE` send only headers, or a page."""
    if scope["type"] != "http" or scope["path"].startswith("/v2/"):
        await oip_app.app(scope, receive, send)
        return
    if scope["path"] == "/t.T/Echo":
        await echo(receive, send)
        return
    while (await receive()).get("more_body", False):
        pass
    if scope["path"] == "/t.T/Refuse":
        headers = [(b"content-type", b"application/grpc"), (b"grpc-status", b"8"), (b"grpc-message", b"too much")]
        await emit(send, {"type": "http.response.start", "status": 200, "headers": headers})
        await emit(send, {"type": "http.response.body", "body": b""})
        return
    status = int(scope["path"].removeprefix("/http/"))
    await emit(send, {"type": "http.response.start", "status": status, "headers": [(b"content-type", b"text/plain")]})
    await emit(send, {"type": "http.response.body", "body": b"a page"})


async def echo(receive: Receive, send: Send) -> None:
    await emit(send, START)
    more = True
    while more:
        event = await receive()
        more = event.get("more_body", False)
        await emit(send, {"type": "http.response.body", "body": event.get("body", b""), "more_body": more})
    await emit(send, TRAILERS)


async def emit(send: Send, event: dict[str, object]) -> None:
    """Sends an event; pyvoy sends immediately, so that it need not be awaited."""
    if inspect.isawaitable(sent := send(event)):
        await sent
