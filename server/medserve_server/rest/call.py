"""An HTTP request that is handled by a gRPC method."""

import asyncio
import zlib
from collections.abc import Callable
from concurrent.futures import Executor
from typing import Any

import grpc
from google.protobuf.message import Message
from google.rpc import status_pb2
from grpc import aio

from medserve_server.calls.http_call import HttpCall
from medserve_server.calls.interceptor import CallInterceptor
from medserve_server.calls.open_calls import OpenCall
from medserve_server.errors import InvalidInput, MessageTooLarge, ServingError, Unsupported
from medserve_server.http.asgi import Scope
from medserve_server.http.inflate import GZIP, ZLIB, inflated
from medserve_server.rest.answer import HTTP_STATUS, ErrorBody, HttpError
from medserve_server.security.auth import Metadata
from medserve_server.status import DETAILS_KEY

LARGE_BYTES = 256 * 1024
"""Size from which JSON is parsed and written in a thread, so that it does not block the event loop."""
_FORMATS = {"gzip": GZIP, "deflate": ZLIB}
"""zlib `wbits` by Content-Encoding (RFC 9110)."""


class RestCall:
    """An HTTP request that is handled by a gRPC method.

    Args:
        scope: ASGI scope of the request.
        opened: provides the body.
        interceptor: provides the handlers of all methods.
        max_bytes: maximum size of the body, both compressed and decompressed.
        error_body: serializes an error for the client.
        decoders: threads that parse and write large bodies.
    """

    __slots__ = ("_decoders", "_error_body", "_interceptor", "_max_bytes", "_opened", "headers", "scope")

    def __init__(
        self,
        scope: Scope,
        opened: OpenCall,
        interceptor: CallInterceptor,
        max_bytes: int,
        error_body: ErrorBody,
        decoders: Executor,
    ) -> None:
        self.scope = scope
        self.headers: dict[bytes, bytes] = dict(scope["headers"])
        self._opened = opened
        self._interceptor = interceptor
        self._max_bytes = max_bytes
        self._error_body = error_body
        self._decoders = decoders

    def header(self, name: bytes) -> str:
        """Returns the value of a header, or an empty string if the request does not have it."""
        return self.headers.get(name, b"").decode("latin-1")

    async def run(self, path: str, read: Callable[[bytes], Message], json_bytes: int | None = None) -> Any:  # noqa: ANN401 - of the method's response type
        """Calls a method as a gRPC client would, and returns its response.

        Args:
            path: path of the method.
            read: parses the body into the method's request; raises a ServingError if it is invalid. May be called in a
                thread.
            json_bytes: number of leading bytes of the body that are JSON; None if all of it is JSON.

        Raises:
            HttpError: the call ended with a status other than OK.
        """
        call = HttpCall(self.scope, None)
        try:
            handler: Any = self._interceptor.admit(path, call.invocation_metadata)
            if handler is not None and handler.unary_unary is None:
                await handler.stream_stream(None, call)
            try:
                payload = await self._payload(read, json_bytes)
            except asyncio.CancelledError:
                self._interceptor.count_unread()
                raise
            except ServingError as error:
                refusal: Any = self._interceptor.refusal(path, error)
                await self._refuse(refusal, call, error)
            return await handler.unary_unary(payload, call)
        except aio.AbortError:
            raise self._error(HTTP_STATUS[call.code()], call) from None

    async def written(self, response: Message, write: Callable[[Message], bytes]) -> bytes:
        """Returns the body for a response; that of a large one is written in a thread."""
        if response.ByteSize() < LARGE_BYTES:
            return write(response)
        return await asyncio.get_running_loop().run_in_executor(self._decoders, write, response)

    async def _refuse(self, refusal: Any, call: HttpCall, error: ServingError) -> None:  # noqa: ANN401
        try:
            await refusal.stream_stream(None, call)
        except aio.AbortError:
            if isinstance(error, MessageTooLarge):
                raise self._error(413, call) from None
            raise

    def _error(self, http_status: int, call: HttpCall) -> HttpError:
        headers = [(b"www-authenticate", b"Bearer")] if call.code() is grpc.StatusCode.UNAUTHENTICATED else []
        return HttpError(http_status, self._error_body(http_status, _status(call, call.trailing_metadata())), headers)

    async def _payload(self, read: Callable[[bytes], Message], json_bytes: int | None) -> bytes:
        """Returns the method's serialized request. Until it is parsed, the body counts as incomplete (`OpenCall.hold`).

        Raises:
            InvalidInput: the body does not match its headers, or is not a valid request of the method.
            MessageTooLarge: the body is too long.
            Overloaded: unparsed bodies already occupy too much memory.
            Unsupported: the Content-Encoding is not supported.
        """
        length = self.header(b"content-length")
        if length.isdigit() and len(length) < 20 and int(length) > self._max_bytes:
            raise MessageTooLarge(f"the body has {length} bytes, at most {self._max_bytes} are accepted")
        body = await self._received()
        encoding = self.header(b"content-encoding").lower()

        def make() -> bytes:
            plain = body if encoding in {"", "identity"} else _decompressed(body, encoding, self._max_bytes)
            return read(plain).SerializeToString()

        large = len(body) >= LARGE_BYTES and (json_bytes is None or json_bytes >= LARGE_BYTES)
        if large or encoding in _FORMATS:
            payload = await asyncio.get_running_loop().run_in_executor(self._decoders, make)
        else:
            payload = make()
        self._opened.hold(0)
        return payload

    async def _received(self) -> bytes:
        chunks: list[bytes] = []
        left = self._max_bytes
        self._opened.limit_body()
        while not self._opened.read:
            chunk = await self._opened.chunk()
            left -= len(chunk)
            if left < 0:
                raise MessageTooLarge(f"the body has more than the {self._max_bytes} bytes accepted")
            chunks.append(chunk)
            self._opened.hold(self._max_bytes - left)
        return chunks[0] if len(chunks) == 1 else b"".join(chunks)


def _decompressed(body: bytes, encoding: str, max_bytes: int) -> bytes:
    if encoding not in _FORMATS:
        raise Unsupported(f"Content-Encoding is {encoding[:32]!r}; gzip, deflate and identity are accepted")
    try:
        data, whole = inflated(body, _FORMATS[encoding], max_bytes)
    except zlib.error:
        raise InvalidInput.of("", f"the {len(body)} bytes of the body are not a {encoding} stream") from None
    if len(data) > max_bytes:
        raise MessageTooLarge(f"the decompressed body has more than the {max_bytes} bytes accepted")
    if not whole:
        raise InvalidInput.of("", f"the {len(body)} bytes of the body are not one complete {encoding} stream")
    return data


def _status(call: HttpCall, metadata: Metadata) -> status_pb2.Status:
    """Returns the status of a call, with its details if it has any."""
    for key, value in metadata:
        if key == DETAILS_KEY and isinstance(value, bytes):
            return status_pb2.Status.FromString(value)
    return status_pb2.Status(code=call.code().value[0], message=call.details())
