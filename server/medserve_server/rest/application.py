"""The REST application (ASGI): routes requests to endpoints."""

import asyncio
import re
from collections.abc import Callable, Mapping
from concurrent.futures import Executor
from functools import partial
from importlib.resources import files

from google.rpc import status_pb2

from medserve_server.calls.interceptor import CallInterceptor
from medserve_server.calls.open_calls import OpenCall, OpenCalls
from medserve_server.errors import ServingError
from medserve_server.http.asgi import Receive, Scope, Send
from medserve_server.http.pages import Page, probes
from medserve_server.rest import inference, typed
from medserve_server.rest.answer import HTTP_STATUS, Answer, ErrorBody, HttpError, long_error, short_error
from medserve_server.rest.call import RestCall
from medserve_server.rest.inference import Endpoint
from medserve_server.rest.status import PATH
from medserve_server.status import CODES, to_status
from medserve_server.supervise import report


class Rest:
    """Handles the REST requests of an ASGI application.

    Args:
        interceptor: provides the handlers of the gRPC methods.
        open_calls: monitors client disconnects and slow request bodies.
        max_message_bytes: maximum size of a body.
        why_not_ready: returns the reason why the server does not accept work as one line, or an empty string.
        decoders: threads that parse large bodies.
        status: endpoint of `medserve_server.rest.status.PATH`.
        pages: pages by path.
    """

    def __init__(
        self,
        interceptor: CallInterceptor,
        open_calls: OpenCalls,
        max_message_bytes: int,
        why_not_ready: Callable[[], str],
        decoders: Executor,
        status: Endpoint,
        pages: Mapping[str, Page],
    ) -> None:
        self._interceptor = interceptor
        self._open_calls = open_calls
        self._max_bytes = max_message_bytes
        self._decoders = decoders
        self._openapi = files("medserve_server.rest").joinpath("openapi.json").read_bytes()
        self._routes = _routes(
            [
                *inference.ENDPOINTS,
                *typed.endpoints(),
                ("GET", PATH, status),
                *(("GET", path, partial(_page, page)) for path, page in probes(why_not_ready).items()),
                ("GET", "/openapi.json", self._document),
                *(("GET", re.escape(path), partial(_page, page)) for path, page in pages.items()),
            ]
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handles a request (ASGI)."""
        opened = self._open_calls.begin(receive, None)
        error_body = short_error if scope["path"].startswith("/v2") else long_error
        call = RestCall(scope, opened, self._interceptor, self._max_bytes, error_body, self._decoders)
        try:
            await _send(await self._answer(call, opened, error_body), scope["method"], send)
        except asyncio.CancelledError:
            if not opened.disconnected:
                raise
        except OSError:  # raised by the ASGI server if the client disconnected
            return
        finally:
            self._open_calls.end(opened)

    async def _answer(self, call: RestCall, opened: OpenCall, error_body: ErrorBody) -> Answer:
        try:
            if b"content-length" in call.headers and b"transfer-encoding" in call.headers:
                raise _ambiguous_length(error_body)
            endpoint, names = self._find(call.scope["method"], call.scope["path"], error_body)
            return await endpoint(call, names)
        except HttpError as error:
            return error.answer
        except asyncio.CancelledError:
            if not opened.overdue:
                raise
            late = status_pb2.Status(code=4, message=opened.overdue)
            return HttpError(408, error_body(408, late), [(b"connection", b"close")]).answer
        except ServingError as error:  # from a response that cannot be written as JSON
            status = to_status(error)
            http_status = HTTP_STATUS[CODES[status.code]]
            return HttpError(http_status, error_body(http_status, status)).answer
        except Exception as error:  # noqa: BLE001 - reported, and answered with status 500
            report("REST", error)
            failed = status_pb2.Status(code=13, message="internal server error; see the server log")
            return HttpError(500, error_body(500, failed)).answer

    def _find(self, method: str, path: str, error_body: ErrorBody) -> tuple[Endpoint, Mapping[str, str]]:
        """Returns the endpoint for a path, and the path's variables."""
        for pattern, methods in self._routes:
            if match := pattern.fullmatch(path):
                endpoint = methods.get(method)
                if endpoint is None:
                    allowed = ", ".join(methods)
                    wrong = status_pb2.Status(code=12, message=f"{method[:32]} is not allowed here, expected {allowed}")
                    raise HttpError(405, error_body(405, wrong), [(b"allow", allowed.encode())])
                return endpoint, {name: value for name, value in match.groupdict().items() if value is not None}
        unknown = status_pb2.Status(
            code=5, message=f"unknown path {path[:256]!r}; see /openapi.json for the available paths"
        )
        raise HttpError(404, error_body(404, unknown))

    async def _document(self, _: RestCall, __: Mapping[str, str]) -> Answer:
        return Answer(self._openapi)


def _ambiguous_length(error_body: ErrorBody) -> HttpError:
    """Returns the error for an ambiguous body length (RFC 9112, section 6.3), which Envoy refuses itself."""
    text = "the request has both Content-Length and Transfer-Encoding; send only one of them"
    wrong = status_pb2.Status(code=3, message=text)
    return HttpError(400, error_body(400, wrong), [(b"connection", b"close")])


def _routes(endpoints: list[tuple[str, str, Endpoint]]) -> list[tuple[re.Pattern[str], dict[str, Endpoint]]]:
    """Groups endpoints by path pattern and HTTP method; GET endpoints also handle HEAD."""
    found: dict[str, dict[str, Endpoint]] = {}
    for method, pattern, endpoint in endpoints:
        found.setdefault(pattern, {})[method] = endpoint
        if method == "GET":
            found[pattern]["HEAD"] = endpoint
    return [(re.compile(pattern), methods) for pattern, methods in found.items()]


async def _page(page: Page, call: RestCall, _: Mapping[str, str]) -> Answer:
    """Serves a page of `medserve_server.http.pages`, as the metrics port does."""
    response = await page(call.scope)
    return Answer(response.body, response.encoded_headers, response.status)


async def _send(answer: Answer, method: str, send: Send) -> None:
    # Without a length in a 304, since it would be that of the 200 (RFC 9110, section 8.6).
    length = [(b"content-length", str(len(answer.body)).encode())] if answer.status != 304 else []
    await send({"type": "http.response.start", "status": answer.status, "headers": [*answer.headers, *length]})
    body = b"" if method == "HEAD" else answer.body
    await send({"type": "http.response.body", "body": body, "more_body": False})
