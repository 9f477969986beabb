"""Diagnoses failed connections where only one side uses TLS.

gRPC reports only "Socket closed" or "WRONG_VERSION_NUMBER". A separate probe connection sends the server the opening
bytes of the other kind of client and examines the first bytes of the reply.
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
"""Timeout of the probe, connecting and reading, over all addresses of the server."""
_ANSWER_BYTES = 9
# Record types with which a TLS server of any version replies: alert and handshake.
_TLS_ANSWERS = (b"\x15\x03", b"\x16\x03")
_HTTP2_HELLO = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])
_SETTINGS, _CONNECTION = 4, bytes(4)
_PROXIES = ("grpc_proxy", "https_proxy", "http_proxy")


def check_connection_error(target: str, error: UnavailableError, *, encrypted: bool) -> None:
    """Raises a more specific error if a call failed to connect because only one side uses TLS.

    Args:
        target: target of the call.
        error: error of the call.
        encrypted: whether the call used TLS.

    Raises:
        TlsMismatchError: only one side uses TLS.
    """
    # gRPC's message when it could not connect; if name resolution failed, there is nothing to probe.
    if "last error:" in error.message and (told := explanation(target, encrypted=encrypted)):
        raise TlsMismatchError(grpc.StatusCode.UNAVAILABLE, told) from error


def explanation(target: str, *, encrypted: bool) -> str:
    """Probes, for at most a second, whether a server uses TLS; returns an empty string if it matches the client.

    Args:
        target: target of the call.
        encrypted: whether the client used TLS.
    """
    if not (found := addresses(target)) or (not never_proxied(target) and any(map(os.environ.get, _PROXIES))):
        return ""
    host, port = found[0]
    answer = _answer(host, port, _HTTP2_HELLO if encrypted else _tls_hello())
    if encrypted and _is_http(answer):
        return (
            f"{target} does not use TLS: the server answered in plaintext; omit `tls` "
            "(on the command line --tls, --ca, --cert and --key)"
        )
    if not encrypted and answer.startswith(_TLS_ANSWERS):
        return f"{target} expects TLS but was called in plaintext; pass `tls` (on the command line --ca FILE or --tls)"
    return ""


def _is_http(answer: bytes) -> bool:
    """Returns whether a reply starts like HTTP/1.1, with a status line, or like HTTP/2, with a SETTINGS frame."""
    return answer.startswith(b"HTTP/1.") or (answer[3:4] == bytes([_SETTINGS]) and answer[5:9] == _CONNECTION)


def _answer(host: str, port: int, hello: bytes) -> bytes:
    """Returns the first bytes of a server's reply; empty if there is none."""
    end = time.monotonic() + _SECONDS
    answer = b""
    # The name may not resolve, and the server may close the connection.
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
    """Returns a TLS ClientHello."""
    outgoing = ssl.MemoryBIO()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False  # no application data is sent
    with suppress(ssl.SSLWantReadError):
        context.wrap_bio(ssl.MemoryBIO(), outgoing).do_handshake()
    return outgoing.read()
