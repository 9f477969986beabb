"""What one client may have: calls under way, requests in a second, connections and how it treats them."""

import math
import threading
import time
from functools import lru_cache
from ipaddress import ip_address, ip_network
from urllib.parse import unquote

from medserve_server.config import Settings
from medserve_server.errors import Overloaded

_FORGET_AT = 10_000
"""Clients whose rate is remembered before those that have been quiet are forgotten."""


class CallLimits:
    """Counts the calls under way, in all and of each client, and meters the clients. Threads may share one.

    Args:
        max_calls: in all.
        max_client_calls: of one client.
        max_client_rate: requests of one client in a second, None for no limit. A client that was quiet may send
            those of one second at once.
    """

    def __init__(self, max_calls: int, max_client_calls: int, max_client_rate: float | None) -> None:
        self._max_calls = max_calls
        self._max_client_calls = max_client_calls
        self.metered = max_client_rate is not None
        self._rate = max_client_rate or 0.0
        self._interval = 1 / max_client_rate if max_client_rate else 0.0
        self._burst = max(1.0, self._interval)
        self._lock = threading.Lock()
        self._all = 0
        self._calls: dict[str, int] = {}
        self._paid_until: dict[str, float] = {}

    def check(self) -> None:
        """Raises Overloaded where `enter` would for any client: before the call's message is read."""
        if self._all >= self._max_calls:
            raise Overloaded(f"{self._all} calls are being answered already; try again later", limit="calls")

    def enter(self, client: str) -> None:
        """Counts a call that begins.

        Raises:
            Overloaded: it is one too many; then there is nothing to `leave`.
        """
        with self._lock:
            self.check()
            calls = self._calls.get(client, 0)
            if calls >= self._max_client_calls:
                text = f"{calls} calls of this client are being answered already; try again when one has ended"
                raise Overloaded(text, limit="client_calls")
            if self.metered:
                self._meter(client)
            self._calls[client] = calls + 1
            self._all += 1

    def leave(self, client: str) -> None:
        """Counts a call that ended."""
        with self._lock:
            self._all -= 1
            if self._calls[client] == 1:
                del self._calls[client]
            else:
                self._calls[client] -= 1

    def pay(self, client: str) -> float:
        """Takes a further request of a stream into the meter; gives the seconds that it has to wait."""
        with self._lock:
            now = time.monotonic()
            until = self._paid_until[client] = self._next(client, now)
        return max(0.0, until - now)

    def _meter(self, client: str) -> None:
        now = time.monotonic()
        until = self._next(client, now)
        if until > now:
            text = f"more than {self._rate:g} requests in a second came from this client; try again later"
            raise Overloaded(text, limit="client_rate")
        if len(self._paid_until) >= _FORGET_AT:
            self._paid_until = {one: paid for one, paid in self._paid_until.items() if paid > now - self._burst}
        self._paid_until[client] = until

    def _next(self, client: str, now: float) -> float:
        """A token bucket as one number: the time up to which the client's requests are paid for, with one more."""
        return max(self._paid_until.get(client, -math.inf), now - self._burst) + self._interval


@lru_cache(maxsize=4096)
def client_of(peer: str) -> str:
    """The client behind gRPC's name of a peer: its IPv4 address, or the /64 network that an IPv6 host may roam in."""
    kind, _, address = unquote(peer).rpartition(":")[0].partition(":")
    if kind != "ipv6":
        return address
    ip = ip_address(address.strip("[]").partition("%")[0])
    mapped = getattr(ip, "ipv4_mapped", None)
    return str(mapped or ip_network((ip, 64), strict=False))


def connection_limits(settings: Settings) -> list[tuple[str, int]]:
    """What grpc's own server is told about connections."""
    age, idle, ping_interval = (
        min(round(seconds * 1000), 2**31 - 1)  # that is forever
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
