"""Why no connection comes about where one side speaks TLS and the other doesn't.

gRPC tells no more than "Socket closed" or "WRONG_VERSION_NUMBER". A connection of its own finds out: it sends the
server how the other kind of client begins, and looks at the first bytes of the answer.
"""

import os
import socket
import ssl
import time
from contextlib import suppress

import grpc

from medserve_client.errors import TlsMismatchError, UnavailableError
from medserve_client.target import addresses, never_proxied

_SECONDS = 1.0
"""For the connection and the answer, over all addresses of the server."""
_ANSWER_BYTES = 9
# The records in which a TLS server answers, an alert or its part of the handshake, of any version.
_TLS_ANSWERS = (b"\x15\x03", b"\x16\x03")
_HTTP2_HELLO = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])
_SETTINGS, _CONNECTION = 4, bytes(4)
_PROXIES = ("grpc_proxy", "https_proxy", "http_proxy")


def check_connection_error(target: str, error: UnavailableError, *, encrypted: bool) -> None:
    """Explains the error of a call that found no connection; returns where there is no better explanation.

    Args:
        target: what was called.
        error: of the call.
        encrypted: whether the call was to go over TLS.

    Raises:
        TlsMismatchError: one side speaks TLS, and the other doesn't.
    """
    # With these words gRPC says that it could not connect; where it found no address there is nothing to ask.
    if "last error:" in error.message and (told := explanation(target, encrypted=encrypted)):
        raise TlsMismatchError(grpc.StatusCode.UNAVAILABLE, told) from error


def explanation(target: str, *, encrypted: bool) -> str:
    """Asks a server, for a second at most, whether it speaks TLS; empty where it does as the client expects.

    Args:
        target: what was called.
        encrypted: whether the client spoke TLS.
    """
    if not (found := addresses(target)) or (not never_proxied(target) and any(map(os.environ.get, _PROXIES))):
        return ""
    host, port = found[0]
    answer = _answer(host, port, _HTTP2_HELLO if encrypted else _tls_hello())
    if encrypted and _is_http(answer):
        return (
            f"{target} does not speak TLS: the server answered in plain text; leave out `tls` "
            "(on the command line --tls, --ca, --cert and --key)"
        )
    if not encrypted and answer.startswith(_TLS_ANSWERS):
        return (
            f"{target} expects TLS, and was called in plain text; pass `tls` (on the command line --ca FILE or --tls)"
        )
    return ""


def _is_http(answer: bytes) -> bool:
    """Whether an answer is how a server of HTTP/1.1 or HTTP/2 begins: with a status line, or its settings."""
    return answer.startswith(b"HTTP/1.") or (answer[3:4] == bytes([_SETTINGS]) and answer[5:9] == _CONNECTION)


def _answer(host: str, port: int, hello: bytes) -> bytes:
    """The first bytes that a server answers; empty where it doesn't."""
    end = time.monotonic() + _SECONDS
    answer = b""
    # The name may be none, and the server may cut the connection.
    with suppress(OSError, UnicodeError):
        for *kind, _, address in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM):
            with socket.socket(*kind) as connection:
                connection.settimeout(max(0.001, end - time.monotonic()))
                if connection.connect_ex(address):
                    continue
                connection.sendall(hello)
                while len(answer) < _ANSWER_BYTES and (more := connection.recv(_ANSWER_BYTES - len(answer))):
                    answer += more
                    connection.settimeout(max(0.001, end - time.monotonic()))
                break
    return answer


def _tls_hello() -> bytes:
    """How a client of TLS begins."""
    outgoing = ssl.MemoryBIO()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False  # nothing is sent over it
    with suppress(ssl.SSLWantReadError):
        context.wrap_bio(ssl.MemoryBIO(), outgoing).do_handshake()
    return outgoing.read()
