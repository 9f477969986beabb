"""A minimal gRPC-Web client over HTTP/1.1.

https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-WEB.md
"""

import base64
import re
from dataclasses import dataclass

from google.protobuf.message import Message

from calls.rest_client import Reply, RestClient

BINARY, TEXT = "application/grpc-web+proto", "application/grpc-web-text+proto"
_TRAILERS = 0x80


@dataclass(frozen=True)
class WebReply:
    """A response: its messages, and the trailers from their frame or, without one, from the headers."""

    http: Reply
    messages: list[bytes]
    trailers: dict[str, str]


def call(client: RestClient, path: str, request: Message, kind: str = BINARY, **headers: str) -> WebReply:
    """Sends a unary call; `kind` is the Content-Type."""
    payload = request.SerializeToString()
    body = b"\0" + len(payload).to_bytes(4, "big") + payload
    text = kind.startswith("application/grpc-web-text")
    reply = client.post(
        path, base64.b64encode(body) if text else body, Content_Type=kind, Accept=kind, X_Grpc_Web="1", **headers
    )
    return _read(reply, _decoded(reply.body) if text else reply.body)


def _decoded(text: bytes) -> bytes:
    """Decodes base64 in several parts, each with separate padding."""
    return b"".join(map(base64.b64decode, re.findall(rb"[^=]+=*", text)))


def _read(reply: Reply, body: bytes) -> WebReply:
    messages, trailers, at = [], {}, 0
    while at < len(body):
        flags, end = body[at], at + 5 + int.from_bytes(body[at + 1 : at + 5], "big")
        assert end <= len(body), "the frame is whole"
        content, at = body[at + 5 : end], end
        if flags != _TRAILERS:
            messages.append(content)
            continue
        assert at == len(body), "trailers come last"
        lines = content.decode().split("\r\n")
        trailers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines if line)}
    return WebReply(reply, messages, trailers)
