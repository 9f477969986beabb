"""gRPC over an ASGI server with HTTP trailers: dispatches unary and streaming calls to grpc.aio handlers.

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
"""Header in which Envoy passes the client's Content-Type, since its gRPC-Web filter replaces the original."""

_CONTENT_TYPES = frozenset({b"application/grpc", b"application/grpc+proto"})
_UNITS = {"H": 3600.0, "M": 60.0, "S": 1.0, "m": 1e-3, "u": 1e-6, "n": 1e-9}


class GrpcAdapter:
    """Handles the gRPC calls of an ASGI application.

    Args:
        interceptor: provides the handlers of all methods.
        open_calls: monitors deadlines and client disconnects.
        max_message_bytes: maximum size of a request message.
    """

    def __init__(self, interceptor: CallInterceptor, open_calls: OpenCalls, max_message_bytes: int) -> None:
        self._interceptor = interceptor
        self._open_calls = open_calls
        self._max_bytes = max_message_bytes

    def has(self, path: str) -> bool:
        """Returns whether a method exists at this path."""
        return self._interceptor.has(path)

    async def __call__(self, scope: Scope, headers: Mapping[bytes, bytes], receive: Receive, send: Send) -> None:
        """Handles a call (ASGI).

        Args:
            scope: scope of the request.
            headers: headers of the request; the last one of repeated headers.
            receive: returns the next event.
            send: sends an event.
        """
        if refusal := _http_refusal(scope, headers):
            await _refuse_http(*refusal, send)
            return
        deadline, header_error = _deadline(headers.get(b"grpc-timeout"))
        opened = self._open_calls.begin(receive, deadline)
        response = Response(send, opened.disconnect)
        call = HttpCall(scope, deadline)
        reader = MessageReader(opened, headers, self._max_bytes)
        try:
            await self._answer(scope["path"], call, reader, response, header_error)
        except OSError:  # raised by the ASGI server if the client disconnected
            return
        except BaseException as error:  # noqa: BLE001 - sent to the client, or raised again
            with suppress(OSError):
                await self._fail(error, scope["path"], call, opened, response)
        finally:
            response.close()
            self._open_calls.end(opened)

    async def _fail(
        self, error: BaseException, path: str, call: HttpCall, opened: OpenCall, response: Response
    ) -> None:
        """Ends a call with the status for the exception that its handler raised."""
        if isinstance(error, aio.AbortError):
            await response.fail(call.code(), call.details(), call.trailing_metadata())
        elif isinstance(error, Exception):  # reported; if it were raised, the client would receive OK
            report("call", error, f"of {path[:256]}")
            await response.fail(grpc.StatusCode.INTERNAL, "internal server error; see the server log")
        elif isinstance(error, asyncio.CancelledError) and opened.overdue:
            await response.fail(grpc.StatusCode.DEADLINE_EXCEEDED, opened.overdue)
        elif not (isinstance(error, asyncio.CancelledError) and opened.disconnected):
            raise error

    async def _answer(
        self, path: str, call: HttpCall, reader: MessageReader, response: Response, header_error: InvalidInput | None
    ) -> None:
        """Handles a call; `header_error` is an error in its headers, if any."""
        handler: Any = self._interceptor.admit(path, call.invocation_metadata)  # typed only for grpc's own servers
        if handler is None:
            await response.fail(grpc.StatusCode.UNIMPLEMENTED, f"unknown method {path[:256]}")
        elif header_error is not None:
            await _answer_stream(self._interceptor.refusal(path, header_error), call, reader, response)
        elif handler.unary_unary is not None:
            payload = await self._single_message(path, call, reader, response)
            if payload is not None:
                await response.only(handler.response_serializer(await handler.unary_unary(payload, call)))
        elif handler.stream_stream is not None:
            await _answer_stream(handler, call, reader, response)
        else:
            payload = await self._single_message(path, call, reader, response)
            if payload is not None:
                serialize = handler.response_serializer
                call.write_with(lambda message: response.write(serialize(message)))
                await handler.unary_stream(payload, call)
                await response.finish()

    async def _single_message(
        self, path: str, call: HttpCall, reader: MessageReader, response: Response
    ) -> bytes | None:
        """Returns the single message of a call; if it is invalid, responds with the error and returns None."""
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
    if inspect.iscoroutine(answers):  # a refusal, which ends the call without a message
        await answers
    else:
        async for message in answers:
            await response.write(handler.response_serializer(message))
    await response.finish()


def _http_refusal(scope: Scope, headers: Mapping[bytes, bytes]) -> tuple[int, str] | None:
    """Returns the HTTP status and the reason if a request is not a valid gRPC call, else None."""
    if scope["method"] != "POST":
        return 405, f"{scope['method'][:32]} is not allowed for a gRPC method, expected POST"
    content_type = headers.get(b"content-type", b"")
    if content_type not in _CONTENT_TYPES:
        given = content_type[:64].decode("latin-1")
        return 415, f"Content-Type is {given!r}, expected application/grpc, application/grpc+proto or a gRPC-Web type"
    if scope["http_version"].startswith("1") and not _is_web(headers):
        return 505, "gRPC requires HTTP/2; over HTTP/1.1, the server accepts gRPC-Web and REST (see /openapi.json)"
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
    """Parses grpc-timeout; returns the deadline on the clock of `time.monotonic`, or the error in the header."""
    if timeout is None:
        return None, None
    digits, unit = timeout[:-1], _UNITS.get(timeout[-1:].decode("latin-1"))
    if unit is None or not digits.isdigit() or len(digits) > 8:
        given = timeout[:32].decode("latin-1")
        text = f"is {given!r}, expected one to eight digits and one of the units {', '.join(_UNITS)}"
        return None, InvalidInput.of("grpc-timeout", text)
    return time.monotonic() + int(digits) * unit, None
