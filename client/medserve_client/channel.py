"""gRPC channel configuration: TLS, token, load balancing, retries, message limits and keepalive."""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import grpc

from medserve_client.target import check_target, is_loopback, never_proxied

Metadata = tuple[tuple[str, str], ...]

DEFAULT_TARGET = "127.0.0.1:8001"
# Timeout of one call in seconds, including retries.
DEFAULT_TIMEOUT = 30.0
# The server's default limit.
DEFAULT_MAX_MESSAGE_BYTES = 64 * 1024 * 1024

# Overrides the environment: http_proxy and the like, and GRPC_ADDRESS_HTTP_PROXY.
_NO_PROXY = (("grpc.enable_http_proxy", 0), ("grpc.address_http_proxy_enabled_addresses", ""))

_SERVICE_CONFIG = {
    # Across all addresses of a `dns:///` name; no effect with a single address.
    "loadBalancingConfig": [{"round_robin": {}}],
    "methodConfig": [
        {
            "name": [{}],  # every method
            # The call never reached a model: a grpc server answers CANCELLED to a call that arrives while it shuts
            # down, and a call cancelled by this client is not retried. The backoffs, 0.1 + 0.3 + 0.9 seconds, outlast
            # a connection dropped by a restarting server.
            "retryPolicy": {
                "maxAttempts": 4,
                "initialBackoff": "0.1s",
                "maxBackoff": "1s",
                "backoffMultiplier": 3,
                "retryableStatusCodes": ["UNAVAILABLE", "CANCELLED"],
            },
        }
    ],
}


def channel_options(target: str, max_message_bytes: int) -> Sequence[tuple[str, str | int]]:
    """Returns channel options for both grpc and grpc.aio.

    Proxies are bypassed for loopback and link-local targets; for other targets the environment decides.

    Args:
        target: gRPC target that the channel connects to.
        max_message_bytes: maximum size of a message sent or received.

    Raises:
        ValueError: the target is a URL or has an IPv6 address without brackets.
    """
    check_target(target)
    first, comma, _ = target.partition(",")
    # gRPC would send the whole list as :authority, which HTTP/2 servers that validate it reject.
    authority = [("grpc.default_authority", first.partition(":")[2])] if comma else []
    return [
        *authority,
        *(_NO_PROXY if never_proxied(target) else ()),
        ("grpc.service_config", json.dumps(_SERVICE_CONFIG)),
        ("grpc.max_send_message_length", max_message_bytes),
        ("grpc.max_receive_message_length", max_message_bytes),
        # gRPC retries a call only while the request is buffered; the default limit is 256 KiB.
        ("grpc.per_rpc_retry_buffer_size", max_message_bytes),
        # Reconnect to a restarted server before the retries are exhausted.
        ("grpc.initial_reconnect_backoff_ms", 100),
        ("grpc.max_reconnect_backoff_ms", 500),
        # Only streams live long enough to need keepalive. By default a gRPC server
        # disconnects a client that pings more often than every five minutes.
        ("grpc.keepalive_time_ms", 330_000),
        ("grpc.keepalive_timeout_ms", 20_000),
    ]


@dataclass(frozen=True, slots=True)
class Tls:
    """TLS credentials of a channel. All files are PEM.

    Attributes:
        ca: root certificates that the server's certificate must chain to; None for the default public roots.
        certificate: client certificate chain, for servers that require mutual TLS.
        key: private key of `certificate`.

    Raises:
        ValueError: only one of `certificate` and `key` is given.
    """

    ca: str | Path | None = None
    certificate: str | Path | None = None
    key: str | Path | None = None

    def __post_init__(self) -> None:
        if (self.certificate is None) != (self.key is None):
            raise ValueError("certificate and key go together; one of them is missing")


def channel_credentials(target: str, tls: Tls | None, token: str | None) -> grpc.ChannelCredentials | None:
    """Returns the channel credentials; None for plaintext without a token.

    Raises:
        OSError: a file cannot be read.
        ValueError: the token is malformed, or would be sent unencrypted to another machine.
    """
    if tls is not None:
        channel = _tls_credentials(tls)
    elif token is None:
        return None
    elif is_loopback(target):
        channel = grpc.local_channel_credentials()  # refuses an address that is not on this machine after all
    else:
        raise ValueError(f"the token would be sent to {target} unencrypted; use TLS")
    if token is not None and not re.fullmatch(r"[\x21-\x7e]+", token):  # not quoted: it may still be a secret
        raise ValueError("the token is empty, or contains a space, a control character or a non-ASCII character")
    return channel


def call_metadata(token: str | None) -> Metadata:
    """Returns the authorization metadata of every call.

    Not a grpc call credential, which can deadlock: grpc releases it in a background thread that needs the GIL, while
    `Channel.close` holds the GIL and waits for that thread (https://github.com/grpc/grpc/pull/42247).
    """
    return () if token is None else (("authorization", f"Bearer {token}"),)


def _tls_credentials(tls: Tls) -> grpc.ChannelCredentials:
    ca, key, certificate = (
        None if file is None else Path(file).read_bytes() for file in (tls.ca, tls.key, tls.certificate)
    )
    return grpc.ssl_channel_credentials(ca, key, certificate)
