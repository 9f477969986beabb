"""gRPC over an ASGI server that has HTTP trailers: unary calls and streams, by the handlers of grpc.aio.

https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md
"""

import asyncio
import inspect
import time
from collections.abc import Mapping
from typing import Any

import grpc
from grpc import aio

from medserve_server.calls.http_call import HttpCall
from medserve_server.calls.interceptor import CallInterceptor
from medserve_server.calls.open_calls import OpenCalls
from medserve_server.errors import ServingError
from medserve_server.http.asgi import Receive, Scope, Send
from medserve_server.supervise import report
from medserve_server.transport.grpc_frames import MessageReader
from medserve_server.transport.grpc_response import Response

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

    async def __call__(self, scope: Scope, headers: Mapping[bytes, bytes], receive: Receive, send: Send) -> None:
        """Answers a call, by ASGI.

        Args:
            scope: Of the request.
            headers: Of the request; of those that came more than once, the last.
            receive: Gives the next event.
            send: Sends an event.
        """
        timeout = headers.get(b"grpc-timeout")
        deadline = None if timeout is None else time.monotonic() + _seconds(timeout)
        opened = self._open_calls.begin(receive, deadline)
        response = Response(send, opened.leave)
        call = HttpCall(scope, deadline)
        try:
            await self._answer(scope["path"], call, MessageReader(opened, headers, self._max_bytes), response)
        except aio.AbortError:
            await response.fail(call.code(), call.details(), call.trailing_metadata())
        except asyncio.CancelledError:
            if opened.overdue:
                await response.fail(grpc.StatusCode.DEADLINE_EXCEEDED, "the deadline passed before the answer")
            elif not opened.left:
                raise
        except OSError:  # what a server raises where the client is gone
            return
        except Exception as error:  # noqa: BLE001 - reported; what is raised here would reach the client as OK
            report("call", error, f"of {scope['path'][:256]}")
            await response.fail(grpc.StatusCode.INTERNAL, "the server failed; its log says why")
        finally:
            response.close()
            self._open_calls.end(opened)

    async def _answer(self, path: str, call: HttpCall, reader: MessageReader, response: Response) -> None:
        handler: Any = self._interceptor.admit(path, call.invocation_metadata)  # typed for grpc's own servers alone
        if handler is None:
            await response.fail(grpc.StatusCode.UNIMPLEMENTED, f"there is no method {path[:256]}")
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


def _seconds(timeout: bytes) -> float:
    """The value of grpc-timeout: at most eight digits and a unit. One that is malformed leaves no time at all."""
    digits, unit = timeout[:-1], _UNITS.get(timeout[-1:].decode("latin-1"))
    if unit is None or not digits.isdigit() or len(digits) > 8:
        return 0.0
    return int(digits) * unit
