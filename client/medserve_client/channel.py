"""How a channel to the server is set up: load balancing, retries, limits, keepalive."""

import json
from collections.abc import Sequence

DEFAULT_TARGET = "127.0.0.1:8001"
# Seconds that one call may take, retries included.
DEFAULT_TIMEOUT = 30.0
# As the server's own limit.
DEFAULT_MAX_MESSAGE_BYTES = 64 * 1024 * 1024

_SERVICE_CONFIG = {
    # Over all the addresses of a `dns:///` name; with one address it changes nothing.
    "loadBalancingConfig": [{"round_robin": {}}],
    "methodConfig": [
        {
            "name": [{}],  # every method
            # UNAVAILABLE alone: the call never reached a model. 0.1 + 0.3 + 0.9 seconds
            # outlast a connection that a restarting server drops.
            "retryPolicy": {
                "maxAttempts": 4,
                "initialBackoff": "0.1s",
                "maxBackoff": "1s",
                "backoffMultiplier": 3,
                "retryableStatusCodes": ["UNAVAILABLE"],
            },
        }
    ],
}


def channel_options(target: str, max_message_bytes: int) -> Sequence[tuple[str, str | int]]:
    """The options of a channel, for grpc and grpc.aio alike.

    Args:
        target: what the channel connects to.
        max_message_bytes: largest message sent or received.
    """
    first, comma, _ = target.partition(",")
    # gRPC would send the whole list as the name of the server, which is no name to HTTP/2 servers that look.
    authority = [("grpc.default_authority", first.partition(":")[2])] if comma else []
    return [
        *authority,
        ("grpc.service_config", json.dumps(_SERVICE_CONFIG)),
        ("grpc.max_send_message_length", max_message_bytes),
        ("grpc.max_receive_message_length", max_message_bytes),
        # gRPC repeats a call only while it still holds the request; its own limit is 256 KiB.
        ("grpc.per_rpc_retry_buffer_size", max_message_bytes),
        # Try again as often as the retries do, not once a second.
        ("grpc.initial_reconnect_backoff_ms", 100),
        # Only a stream lives long enough to need it. A gRPC server that was not told
        # otherwise cuts off a client that pings more often than every five minutes.
        ("grpc.keepalive_time_ms", 330_000),
        ("grpc.keepalive_timeout_ms", 20_000),
    ]
