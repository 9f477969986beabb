"""The context of a call received over HTTP, with the interface of a gRPC servicer context."""

import base64
import binascii
import re
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import NoReturn

import grpc
from google.protobuf.message import Message
from grpc import aio

from medserve_server.http.asgi import Scope
from medserve_server.security.auth import Metadata

# The common name in a distinguished name (RFC 4514), where a backslash escapes special characters.
_COMMON_NAME = re.compile(r"(?:^|,|\+)\s*CN=((?:\\.|[^,+\\])*)")
_NO_NAMES: Mapping[str, Sequence[bytes]] = {}

Write = Callable[[Message], Awaitable[None]]


class HttpCall:
    """Implements the part of `grpc.aio.ServicerContext` that handlers use, for calls not served by grpcio.

    Args:
        scope: ASGI scope of the request.
        deadline: deadline on the clock of `time.monotonic`; None without one.
    """

    __slots__ = ("_code", "_deadline", "_details", "_scope", "_trailing", "_write")

    def __init__(self, scope: Scope, deadline: float | None) -> None:
        self._scope = scope
        self._deadline = deadline
        self._code = grpc.StatusCode.UNKNOWN
        self._details = ""
        self._trailing: Metadata = ()
        self._write: Write | None = None

    def invocation_metadata(self) -> list[tuple[str, str | bytes]]:
        """Returns the headers of the request; values of headers that end in -bin are bytes."""
        return [
            (key.decode("latin-1"), _decoded(value) if key.endswith(b"-bin") else value.decode("latin-1"))
            for key, value in self._scope["headers"]
        ]

    def peer(self) -> str:
        """Returns the address of the client in gRPC's format, `ipv4:HOST:PORT` or `ipv6:[HOST]:PORT`."""
        host, port = self._scope["client"]
        return f"ipv6:[{host}]:{port}" if ":" in host else f"ipv4:{host}:{port}"

    def auth_context(self) -> Mapping[str, Sequence[bytes]]:
        """Returns the common name of the client's verified certificate, under the same key as grpcio.

        It is taken from the connection (ASGI extension `tls`), not from a header, which clients could forge.
        """
        tls = self._scope.get("extensions", {}).get("tls")
        if not tls or not tls.get("client_cert_name"):
            return _NO_NAMES
        found = _COMMON_NAME.search(tls["client_cert_name"])
        return {"x509_common_name": [re.sub(r"\\(.)", r"\1", found[1]).encode()]} if found else _NO_NAMES

    def time_remaining(self) -> float | None:
        """Returns the seconds until the deadline, or None without one."""
        return None if self._deadline is None else max(0.0, self._deadline - time.monotonic())

    async def abort(self, code: grpc.StatusCode, details: str = "", trailing_metadata: Metadata = ()) -> NoReturn:
        """Ends the call with a status.

        Raises:
            AbortError: always.
        """
        self._code, self._details, self._trailing = code, details, trailing_metadata
        raise aio.AbortError

    def code(self) -> grpc.StatusCode:
        """Returns the status code that was set, or UNKNOWN if none was."""
        return self._code

    def details(self) -> str:
        """Returns the status message."""
        return self._details

    def trailing_metadata(self) -> Metadata:
        """Returns the metadata that is sent with the status."""
        return self._trailing

    def write_with(self, write: Write) -> None:
        """Sets the function with which `write` sends messages of a server-streaming method."""
        self._write = write

    async def write(self, message: Message) -> None:
        """Sends a message of a server-streaming method."""
        if self._write is None:
            raise TypeError("only server-streaming methods can write messages")
        await self._write(message)


def _decoded(value: bytes) -> bytes:
    """Decodes base64 with or without padding; returns invalid base64 unchanged."""
    try:
        return base64.b64decode(value + b"=" * (-len(value) % 4), validate=True)
    except binascii.Error:
        return value
