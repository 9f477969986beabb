"""Limits on concurrent calls, request rates and connections."""

import math
import threading
import time
from functools import lru_cache
from ipaddress import ip_address, ip_network
from urllib.parse import unquote

from medserve_server.config import Settings
from medserve_server.errors import Overloaded

_MAX_TRACKED_CLIENTS = 10_000
"""Number of clients with a tracked rate above which idle clients are removed."""


class CallLimits:
    """Limits concurrent calls, in total and per client, and the request rate per client. Thread-safe.

    Args:
        max_calls: maximum number of concurrent calls.
        max_client_calls: maximum number of concurrent calls per client.
        max_client_rate: maximum number of requests per second and client; None for no limit. An idle client may send
            the requests of one second in a burst.
    """

    def __init__(self, max_calls: int, max_client_calls: int, max_client_rate: float | None) -> None:
        self._max_calls = max_calls
        self._max_client_calls = max_client_calls
        self.metered = max_client_rate is not None
        self._rate = max_client_rate or math.inf
        self._interval = 1 / self._rate
        self._burst = max(1.0, self._interval)
        self._lock = threading.Lock()
        self._all = 0
        self._calls: dict[str, int] = {}
        self._paid_until: dict[str, float] = {}

    def check(self) -> None:
        """Raises Overloaded if `enter` would for any client; used before the message of a call is read."""
        if self._all >= self._max_calls:
            raise Overloaded(f"{self._all} calls are already in progress; try again later", limit="calls")

    def enter(self, client: str) -> None:
        """Counts the start of a call.

        Raises:
            Overloaded: the call exceeds a limit; it is not counted, and `leave` must not be called.
        """
        with self._lock:
            self.check()
            calls = self._calls.get(client, 0)
            if calls >= self._max_client_calls:
                text = f"{calls} calls of this client are already in progress; try again when one has ended"
                raise Overloaded(text, limit="client_calls")
            if self.metered:
                self._meter(client)
            self._calls[client] = calls + 1
            self._all += 1

    def leave(self, client: str) -> None:
        """Counts the end of a call."""
        with self._lock:
            self._all -= 1
            if self._calls[client] == 1:
                del self._calls[client]
            else:
                self._calls[client] -= 1

    def pay(self, client: str) -> float:
        """Counts another request of a stream against the rate; returns the seconds for which it must be delayed."""
        with self._lock:
            now = time.monotonic()
            until = self._paid_until[client] = self._next(client, now)
        return max(0.0, until - now)

    def _meter(self, client: str) -> None:
        now = time.monotonic()
        until = self._next(client, now)
        if until > now:
            text = f"this client sent more than {self._rate:g} requests per second; try again later"
            raise Overloaded(text, limit="client_rate")
        if len(self._paid_until) >= _MAX_TRACKED_CLIENTS:
            self._paid_until = {one: paid for one, paid in self._paid_until.items() if paid > now - self._burst}
        self._paid_until[client] = until

    def _next(self, client: str, now: float) -> float:
        """Returns the client's next state: a token bucket, stored as the time up to which its requests are paid for."""
        return max(self._paid_until.get(client, -math.inf), now - self._burst) + self._interval


@lru_cache(maxsize=4096)
def client_of(peer: str) -> str:
    """Returns the client identity for a gRPC peer name: the IPv4 address, or the /64 network of an IPv6 address."""
    kind, _, address = unquote(peer).rpartition(":")[0].partition(":")
    if kind != "ipv6":
        return address
    ip = ip_address(address.strip("[]").partition("%")[0])
    mapped = getattr(ip, "ipv4_mapped", None)
    return str(mapped or ip_network((ip, 64), strict=False))


def connection_limits(settings: Settings) -> list[tuple[str, int]]:
    """Returns the channel arguments for connections of grpcio's server."""
    age, idle, ping_interval = (
        min(round(seconds * 1000), 2**31 - 1)  # interpreted as infinite
        for seconds in (settings.max_connection_age, settings.max_connection_idle, settings.min_ping_interval)
    )
    return [
        ("grpc.max_allowed_incoming_connections", settings.max_connections),
        ("grpc.server_handshake_timeout_ms", 20_000),
        ("grpc.max_connection_age_ms", age),
        ("grpc.max_connection_age_grace_ms", age),
        ("grpc.max_connection_idle_ms", idle),
        ("grpc.http2.min_ping_interval_without_data_ms", ping_interval),
        ("grpc.http2.max_ping_strikes", 2),
    ]
