"""gRPC over an ASGI server that has HTTP trailers: unary calls and streams, by the handlers of grpc.aio.

https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md
"""

import asyncio
import inspect
import time
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import grpc
from grpc import aio

from medserve_server.calls.http_call import HttpCall
from medserve_server.calls.interceptor import CallInterceptor
from medserve_server.calls.open_calls import OpenCall, OpenCalls
from medserve_server.errors import InvalidInput, ServingError
from medserve_server.http.asgi import Receive, Scope, Send
from medserve_server.supervise import report
from medserve_server.transport.grpc_frames import MessageReader
from medserve_server.transport.grpc_response import Response

SENT_CONTENT_TYPE = b"x-medserve-content-type"
"""Header in which Envoy passes on the Content-Type that the client sent: that of gRPC-Web becomes that of gRPC."""

_CONTENT_TYPES = frozenset({b"application/grpc", b"application/grpc+proto"})
_UNITS = {"H": 3600.0, "M": 60.0, "S": 1.0, "m": 1e-3, "u": 1e-6, "n": 1e-9}


class GrpcAdapter:
    """Answers the gRPC calls that come to an ASGI application.

    Args:
        interceptor: Has the handlers of all methods.
        open_calls: Where the calls are watched for deadlines and for clients that leave.
        max_message_bytes: Length of a request.
    """

    def __init__(self, interceptor: CallInterceptor, open_calls: OpenCalls, max_message_bytes: int) -> None:
        self._interceptor = interceptor
        self._open_calls = open_calls
        self._max_bytes = max_message_bytes

    def has(self, path: str) -> bool:
        """Says whether there is a method at this path."""
        return self._interceptor.has(path)

    async def __call__(self, scope: Scope, headers: Mapping[bytes, bytes], receive: Receive, send: Send) -> None:
        """Answers a call, by ASGI.

        Args:
            scope: Of the request.
            headers: Of the request; of those that came more than once, the last.
            receive: Gives the next event.
            send: Sends an event.
        """
        if refusal := _http_refusal(scope, headers):
            await _refuse_http(*refusal, send)
            return
        deadline, wrong = _deadline(headers.get(b"grpc-timeout"))
        opened = self._open_calls.begin(receive, deadline)
        response = Response(send, opened.leave)
        call = HttpCall(scope, deadline)
        reader = MessageReader(opened, headers, self._max_bytes)
        try:
            await self._answer(scope["path"], call, reader, response, wrong)
        except OSError:  # what a server raises where the client is gone
            return
        except BaseException as error:  # noqa: BLE001 - the client is told, and the rest raised again
            with suppress(OSError):
                await self._fail(error, scope["path"], call, opened, response)
        finally:
            response.close()
            self._open_calls.end(opened)

    async def _fail(
        self, error: BaseException, path: str, call: HttpCall, opened: OpenCall, response: Response
    ) -> None:
        """Ends a call with the status of what its answer raised."""
        if isinstance(error, aio.AbortError):
            await response.fail(call.code(), call.details(), call.trailing_metadata())
        elif isinstance(error, Exception):  # reported; what is raised here would reach the client as OK
            report("call", error, f"of {path[:256]}")
            await response.fail(grpc.StatusCode.INTERNAL, "the server failed; its log says why")
        elif isinstance(error, asyncio.CancelledError) and opened.overdue:
            await response.fail(grpc.StatusCode.DEADLINE_EXCEEDED, opened.overdue)
        elif not (isinstance(error, asyncio.CancelledError) and opened.left):
            raise error

    async def _answer(
        self, path: str, call: HttpCall, reader: MessageReader, response: Response, wrong: InvalidInput | None
    ) -> None:
        """Answers a call; `wrong` is what is wrong with its headers."""
        handler: Any = self._interceptor.admit(path, call.invocation_metadata)  # typed for grpc's own servers alone
        if handler is None:
            await response.fail(grpc.StatusCode.UNIMPLEMENTED, f"there is no method {path[:256]}")
        elif wrong is not None:
            await _answer_stream(self._interceptor.refusal(path, wrong), call, reader, response)
        elif handler.unary_unary is not None:
            payload = await self._only(path, call, reader, response)
            if payload is not None:
                await response.only(handler.response_serializer(await handler.unary_unary(payload, call)))
        elif handler.stream_stream is not None:
            await _answer_stream(handler, call, reader, response)
        else:
            payload = await self._only(path, call, reader, response)
            if payload is not None:
                serialize = handler.response_serializer
                call.write_with(lambda message: response.write(serialize(message)))
                await handler.unary_stream(payload, call)
                await response.finish()

    async def _only(self, path: str, call: HttpCall, reader: MessageReader, response: Response) -> bytes | None:
        """The one message of a call; None where it can't be read and the client was told so."""
        try:
            return await reader.only()
        except asyncio.CancelledError:
            self._interceptor.count_unread()
            raise
        except ServingError as error:
            await _answer_stream(self._interceptor.refusal(path, error), call, reader, response)
            return None


async def _answer_stream(handler: Any, call: HttpCall, reader: MessageReader, response: Response) -> None:  # noqa: ANN401
    answers = handler.stream_stream(reader, call)
    if inspect.iscoroutine(answers):  # a refusal: it ends the call without a message
        await answers
    else:
        async for message in answers:
            await response.write(handler.response_serializer(message))
    await response.finish()


def _http_refusal(scope: Scope, headers: Mapping[bytes, bytes]) -> tuple[int, str] | None:
    """The HTTP status and the reason why a request is no call of gRPC; None where it is one."""
    if scope["method"] != "POST":
        return 405, f"{scope['method'][:32]} is not allowed for a method of gRPC, POST is"
    content_type = headers.get(b"content-type", b"")
    if content_type not in _CONTENT_TYPES:
        said = content_type[:64].decode("latin-1")
        return 415, f"Content-Type is {said!r}, expected application/grpc, application/grpc+proto or one of gRPC-Web"
    if scope["http_version"].startswith("1") and not _is_web(headers):
        return 505, "gRPC needs HTTP/2; over HTTP/1.1, the server takes gRPC-Web and REST (see /openapi.json)"
    return None


def _is_web(headers: Mapping[bytes, bytes]) -> bool:
    return headers.get(SENT_CONTENT_TYPE, b"").startswith(b"application/grpc-web")


async def _refuse_http(status: int, reason: str, send: Send) -> None:
    body = reason.encode()
    headers = [(b"content-type", b"text/plain; charset=utf-8"), (b"content-length", str(len(body)).encode())]
    if status == 405:
        headers.append((b"allow", b"POST"))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body, "more_body": False})


def _deadline(timeout: bytes | None) -> tuple[float | None, InvalidInput | None]:
    """The deadline that grpc-timeout sets, on the clock of `time.monotonic`, and what is wrong with that header."""
    if timeout is None:
        return None, None
    digits, unit = timeout[:-1], _UNITS.get(timeout[-1:].decode("latin-1"))
    if unit is None or not digits.isdigit() or len(digits) > 8:
        said = timeout[:32].decode("latin-1")
        text = f"is {said!r}, expected one to eight digits and one of the units {', '.join(_UNITS)}"
        return None, InvalidInput.of("grpc-timeout", text)
    return time.monotonic() + int(digits) * unit, None
