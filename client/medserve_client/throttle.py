"""How a client holds back from a server that has more to do than it can: no more calls at once than it answers.

A call that is refused, or not answered in time, costs the server too. Where callers go on sending, those costs are all
that it has time for in the end. The number of calls under way is found as TCP finds its window (Chiu & Jain 1989:
additive increase, faster decrease), but call by call.
"""

import math
import threading
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager

import grpc

from medserve_client.errors import DeadlineExceededError, OverloadedError

_RAISE = 0.1
"""By an answer: where one call in eleven fails, the number stays as it is."""
_FORGET = 5.0
"""Seconds without a failure after which the server counts as well again."""


class Throttle:
    """Bounds the calls under way to a server that was lately too busy. Threads may share one.

    There is no bound until a call is refused for want of time or room, or meets its deadline. Then no more may be under
    way than were at that moment; each further failure lowers this by one, though not below one, and each answer raises
    it by a tenth.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._under_way = 0
        self._most = math.inf
        self._failed_at = -math.inf

    @contextmanager
    def call(self) -> Iterator[None]:
        """A call, to be made inside.

        Raises:
            OverloadedError: as many as the server can answer are under way already; the call is not to be made.
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
                self._most += _RAISE
        finally:
            with self._lock:
                self._under_way -= 1

    def _begin(self) -> None:
        if time.monotonic() - self._failed_at > _FORGET:
            self._most = math.inf
        if self._under_way + 1 > self._most:
            text = (
                f"not sent: the server was too busy for earlier calls, and {self._under_way} are still under way; "
                "try again later"
            )
            raise OverloadedError(grpc.StatusCode.RESOURCE_EXHAUSTED, text)
        self._under_way += 1

    def _fail(self) -> None:
        self._failed_at = time.monotonic()
        self._most = self._under_way if self._most == math.inf else max(1.0, self._most - 1)


class Throttles:
    """A throttle for each model of a server. Threads may share them."""

    def __init__(self) -> None:
        self._throttles: dict[str, Throttle] = {}

    def call(self, model: str) -> AbstractContextManager[None]:
        """A call of that model, to be made inside; see `Throttle.call`."""
        return (self._throttles.get(model) or self._throttles.setdefault(model, Throttle())).call()
