"""Plain HTTP pages as an ASGI application, and the liveness and readiness probes."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

from medserve_server.http.asgi import App, Receive, Scope, Send
from medserve_server.supervise import report, reporting


@dataclass(frozen=True)
class Response:
    """The response of a page."""

    status: int
    body: bytes
    headers: tuple[tuple[str, str], ...] = (("Content-Type", "text/plain; charset=utf-8"),)

    @property
    def encoded_headers(self) -> tuple[tuple[bytes, bytes], ...]:
        """The headers in ASGI's format."""
        return tuple((name.lower().encode(), value.encode()) for name, value in self.headers)

    @classmethod
    def line(cls, status: int, text: str, *headers: tuple[str, str]) -> "Response":
        """Creates a response with one line of plain text."""
        return cls(status, f"{text}\n".encode(), (*cls.headers, *headers))


Page = Callable[[Scope], Awaitable[Response]]


def application(where: str, pages: Mapping[str, Page]) -> App:
    """Returns an ASGI application that handles GET and HEAD for exactly these paths and never reads a body.

    Args:
        where: component name for `report`, which logs exceptions of a page; the client receives status 500.
        pages: pages by path.
    """

    async def answer(scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG001 - ASGI's
        with reporting(where):
            response = await _response(where, pages, scope)
            headers = [*response.encoded_headers, (b"content-length", str(len(response.body)).encode())]
            await send({"type": "http.response.start", "status": response.status, "headers": headers})
            body = b"" if scope["method"] == "HEAD" else response.body
            await send({"type": "http.response.body", "body": body})

    return answer


async def _response(where: str, pages: Mapping[str, Page], scope: Scope) -> Response:
    page = pages.get(scope["path"])
    if page is None:
        return Response.line(404, f"no such page; the pages are {', '.join(pages)}")
    if scope["method"] not in {"GET", "HEAD"}:
        return Response.line(405, "only GET and HEAD are allowed", ("Allow", "GET, HEAD"))
    try:
        return await page(scope)
    except Exception as error:  # noqa: BLE001 - reported, and answered with status 500
        report(where, error)
        return Response.line(500, "internal server error; see the server log")


def probes(why_not_ready: Callable[[], str]) -> dict[str, Page]:
    """Returns the pages /livez, which always responds with 200, and /readyz.

    Args:
        why_not_ready: returns the reason why the server does not accept work as one line, or an empty string. Must not
            block.
    """

    async def livez(_: Scope) -> Response:
        return Response.line(200, "ok")

    async def readyz(_: Scope) -> Response:
        reason = why_not_ready()
        return Response.line(503, reason) if reason else Response.line(200, "ok")

    return {"/livez": livez, "/readyz": readyz}
