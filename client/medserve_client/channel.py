"""How a channel to the server is set up: encryption, token, load balancing, retries, limits, keepalive."""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import grpc

from medserve_client.target import check_target, is_loopback, never_proxied

Metadata = tuple[tuple[str, str], ...]

DEFAULT_TARGET = "127.0.0.1:8001"
# Seconds that one call may take, retries included.
DEFAULT_TIMEOUT = 30.0
# As the server's own limit.
DEFAULT_MAX_MESSAGE_BYTES = 64 * 1024 * 1024

# Overrides what the environment says: http_proxy and its like, and GRPC_ADDRESS_HTTP_PROXY.
_NO_PROXY = (("grpc.enable_http_proxy", 0), ("grpc.address_http_proxy_enabled_addresses", ""))

_SERVICE_CONFIG = {
    # Over all the addresses of a `dns:///` name; with one address it changes nothing.
    "loadBalancingConfig": [{"round_robin": {}}],
    "methodConfig": [
        {
            "name": [{}],  # every method
            # The call never reached a model: CANCELLED is what grpc tells one that comes in the moment of its shutdown,
            # and one that this side has cancelled is over. 0.1 + 0.3 + 0.9 seconds outlast a connection that a
            # restarting server drops.
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
    """The options of a channel, for grpc and grpc.aio alike.

    A target on this machine or its link is called without a proxy; of others the environment decides.

    Args:
        target: what the channel connects to.
        max_message_bytes: largest message sent or received.

    Raises:
        ValueError: the target has an IPv6 address without brackets.
    """
    check_target(target)
    first, comma, _ = target.partition(",")
    # gRPC would send the whole list as the name of the server, which is no name to HTTP/2 servers that look.
    authority = [("grpc.default_authority", first.partition(":")[2])] if comma else []
    return [
        *authority,
        *(_NO_PROXY if never_proxied(target) else ()),
        ("grpc.service_config", json.dumps(_SERVICE_CONFIG)),
        ("grpc.max_send_message_length", max_message_bytes),
        ("grpc.max_receive_message_length", max_message_bytes),
        # gRPC repeats a call only while it still holds the request; its own limit is 256 KiB.
        ("grpc.per_rpc_retry_buffer_size", max_message_bytes),
        # A server that is back has to be found before the retries are used up.
        ("grpc.initial_reconnect_backoff_ms", 100),
        ("grpc.max_reconnect_backoff_ms", 500),
        # Only a stream lives long enough to need it. A gRPC server that was not told
        # otherwise cuts off a client that pings more often than every five minutes.
        ("grpc.keepalive_time_ms", 330_000),
        ("grpc.keepalive_timeout_ms", 20_000),
    ]


@dataclass(frozen=True, slots=True)
class Tls:
    """How a channel is encrypted. All files are PEM.

    Attributes:
        ca: the authorities that the server's certificate must come from; None for those of the public web.
        certificate: the client's own, with its chain, where the server asks for one.
        key: the private key of `certificate`.

    Raises:
        ValueError: one half of certificate and key is missing.
    """

    ca: str | Path | None = None
    certificate: str | Path | None = None
    key: str | Path | None = None

    def __post_init__(self) -> None:
        if (self.certificate is None) != (self.key is None):
            raise ValueError("certificate and key go together; one of them is missing")


def channel_credentials(target: str, tls: Tls | None, token: str | None) -> grpc.ChannelCredentials | None:
    """What a channel is opened with; None for plain text without a token.

    Raises:
        OSError: a file can't be read.
        ValueError: the token is malformed, or would be sent unencrypted to another machine.
    """
    if tls is not None:
        channel = _tls_credentials(tls)
    elif token is None:
        return None
    elif is_loopback(target):
        channel = grpc.local_channel_credentials()  # refuses an address that turns out not to be of this machine
    else:
        raise ValueError(f"the token would travel to {target} unencrypted; use TLS")
    if token is not None and not re.fullmatch(r"[\x21-\x7e]+", token):  # not shown: it is a secret all the same
        raise ValueError("the token is empty, or has a space or another character that no token has")
    return channel


def call_metadata(token: str | None) -> Metadata:
    """What every call says of who makes it.

    A call credential of grpc would say the same, but with one a program may hang: grpc lets go of it in a thread of its
    own, which needs Python's lock, while `Channel.close` holds that lock and waits for the thread
    (https://github.com/grpc/grpc/pull/42247).
    """
    return () if token is None else (("authorization", f"Bearer {token}"),)


def _tls_credentials(tls: Tls) -> grpc.ChannelCredentials:
    ca, key, certificate = (
        None if file is None else Path(file).read_bytes() for file in (tls.ca, tls.key, tls.certificate)
    )
    return grpc.ssl_channel_credentials(ca, key, certificate)
