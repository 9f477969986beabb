"""Client-side throttling: limits the calls in flight to an overloaded server.

Calls that are rejected or time out cost the server too. If clients keep sending, it ends up spending all its time on
them. The limit is adjusted like the congestion window of TCP (Chiu & Jain 1989: additive increase, faster decrease),
but on every call.
"""

import math
import threading
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager

import grpc

from medserve_client.errors import DeadlineExceededError, OverloadedError

_RAISE = 0.1
"""Increase of the limit for each success: it is stable when one call in eleven fails."""
_FORGET = 5.0
"""Seconds without a failure after which the limit is removed."""


class Throttle:
    """Thread-safe limit on the calls in flight to a server that was recently overloaded.

    There is no limit until a call is rejected because of overload or exceeds its deadline. The limit is then the number
    of calls in flight at that moment; each further failure lowers it by one, to no less than one, and each success
    raises it by 0.1.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._in_flight = 0
        self._limit = math.inf
        self._failed_at = -math.inf

    @contextmanager
    def call(self) -> Iterator[None]:
        """Context manager for one call, which is made inside the block.

        Raises:
            OverloadedError: the limit of calls in flight is reached; the block is not entered.
        """
        with self._lock:
            self._begin()
        try:
            yield
        except (OverloadedError, DeadlineExceededError):
            with self._lock:
                self._fail()
            raise
        else:
            with self._lock:
                self._limit += _RAISE
        finally:
            with self._lock:
                self._in_flight -= 1

    def _begin(self) -> None:
        if time.monotonic() - self._failed_at > _FORGET:
            self._limit = math.inf
        if self._in_flight + 1 > self._limit:
            text = (
                f"not sent: the server was overloaded by earlier calls, and {self._in_flight} are still in flight; "
                "try again later"
            )
            raise OverloadedError(grpc.StatusCode.RESOURCE_EXHAUSTED, text)
        self._in_flight += 1

    def _fail(self) -> None:
        self._failed_at = time.monotonic()
        self._limit = self._in_flight if self._limit == math.inf else max(1.0, self._limit - 1)


class Throttles:
    """One throttle for each model of a server. Thread-safe."""

    def __init__(self) -> None:
        self._throttles: dict[str, Throttle] = {}

    def call(self, model: str) -> AbstractContextManager[None]:
        """Context manager for one call of a model; see `Throttle.call`."""
        return (self._throttles.get(model) or self._throttles.setdefault(model, Throttle())).call()
