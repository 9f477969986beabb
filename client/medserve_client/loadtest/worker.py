"""One process of a load test: generates its share of the load and measures it."""

import gc
import math
import random
import select
import time
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass
from itertools import cycle

import numpy as np

from medserve_client.loadtest.plan import LoadPlan, LoadResult
from medserve_client.loadtest.protocol.connection import Connection, Endpoint, Waiting
from medserve_client.loadtest.protocol.http1 import HttpConnection
from medserve_client.loadtest.protocol.http2 import GrpcConnection

_HOUSEKEEPING = 0.05
"""Seconds between checks for timeouts and lost connections."""


@dataclass(frozen=True, slots=True)
class Share:
    """One process's share of a plan."""

    plan: LoadPlan
    index: int

    @property
    def connections(self) -> int:
        """Number of connections of this process."""
        return len(range(self.index, self.plan.connections, self.plan.processes))

    def in_flight(self, connection: int) -> int:
        """Returns the number of requests that a closed loop keeps in flight on one connection."""
        place = self.index + connection * self.plan.processes
        return len(range(place, self.plan.concurrency, self.plan.connections))


class Worker:
    """Generates a share of a load over its connections, in a single-threaded event loop."""

    def __init__(self, share: Share, endpoint: Endpoint, counts: memoryview) -> None:
        """Does not connect yet.

        Args:
            share: share of the load to generate.
            endpoint: server endpoint.
            counts: two elements, updated during the run with the numbers of successes and failures.
        """
        plan = self._plan = share.plan
        self._share = share
        self._counts = counts
        payloads = list(plan.payloads)
        if plan.http_headers is None:
            payloads = [b"\0" + len(payload).to_bytes(4) + payload for payload in payloads]
        # Processes start at different payloads, so that they do not send the same one at the same time.
        start = share.index * len(payloads) // plan.processes
        self._payloads = cycle(payloads[start:] + payloads[:start])
        self._random = random.Random(plan.seed * 1009 + share.index)  # noqa: S311 - arrivals, no secrets
        self._begin = self._end = self._next_arrival = math.inf
        self._next_check = 0.0
        self._pending = 0
        self._latencies: list[float] = []
        self._errors: Counter[str] = Counter()
        self._completed = 0
        self._late = 0.0
        self._waiting: Waiting = deque()
        self._connections = [self._connection(endpoint, index) for index in range(share.connections)]
        self._turns = cycle(self._connections)

    def _connection(self, endpoint: Endpoint, index: int) -> Connection:
        plan, done = self._plan, self._done(index)
        if plan.http_headers is None:
            return GrpcConnection(endpoint, plan.method, plan.timeout, done, plan.outcome, plan.token)
        headers = plan.http_headers
        return HttpConnection(endpoint, plan.method, plan.timeout, done, self._waiting, headers, plan.token)

    def connect(self) -> None:
        """Opens all connections.

        Raises:
            OSError: a connection cannot be opened within the timeout.
        """
        for connection in self._connections:
            connection.connect()
        limit = time.perf_counter() + self._plan.timeout
        while not all(connection.ready for connection in self._connections):
            if lost := [connection for connection in self._connections if not connection.open]:
                raise OSError(lost[0].failure)
            if time.perf_counter() > limit:
                protocol = "HTTP/2" if self._plan.http_headers is None else "HTTP/1.1"
                raise OSError(f"no {protocol} server answered within {self._plan.timeout:g} seconds")
            self._exchange(_HOUSEKEEPING)

    def run(self, start: float) -> LoadResult:
        """Generates the load from `start`, a time of time.perf_counter, and waits for the last response."""
        self._begin = start + self._plan.warmup
        self._end = self._begin + self._plan.duration
        gc.disable()  # collector pauses would add to the measured latencies
        self._wait_until(start)
        if self._plan.rate:
            self._next_arrival = start + self._gap()
        else:
            for index, connection in enumerate(self._connections):
                for _ in range(self._share.in_flight(index)):
                    self._request(connection, start)
        self._wait_until(self._begin)
        cpu = time.process_time()
        self._wait_until(self._end)
        cpu = time.process_time() - cpu
        while self._pending:
            self._wait_until(time.perf_counter() + _HOUSEKEEPING)
        for connection in self._connections:
            connection.close()
        sent = len(self._latencies) + self._errors.total()
        sample = next((one.sample for one in self._connections if one.sample), b"")
        lateness = self._late / sent if sent else 0.0
        latencies = np.array(self._latencies, dtype=np.float64)
        return LoadResult(latencies, self._errors, sent, self._completed, self._plan.duration, lateness, cpu, sample)

    def _gap(self) -> float:
        return self._random.expovariate(self._plan.rate / self._plan.processes)

    def _request(self, connection: Connection, due: float) -> None:
        self._pending += 1
        connection.request(due, next(self._payloads))

    def _done(self, index: int) -> Callable[[float, str], None]:
        """Returns the callback of a connection for the end of one of its requests."""

        def done(due: float, status: str) -> None:
            self._pending -= 1
            now = time.perf_counter()
            ok = status == "OK"
            self._counts[0 if ok else 1] += 1
            if ok and self._begin <= now < self._end:
                self._completed += 1
            if self._begin <= due < self._end:
                if ok:
                    self._latencies.append(now - due)
                else:
                    self._errors[status] += 1
            if now < self._end and not self._plan.rate:
                self._request(self._connections[index], now)

        return done

    def _wait_until(self, moment: float) -> None:
        """Sends due requests and receives responses until `moment`."""
        while (now := time.perf_counter()) < moment:
            self._arrive(now)
            if now >= self._next_check:
                self._next_check = now + _HOUSEKEEPING
                self._reconnect_and_expire(now)
            self._exchange(min(moment, self._next_arrival, self._next_check) - time.perf_counter())

    def _arrive(self, now: float) -> None:
        """Sends the requests of an open loop that are due, however late."""
        while self._next_arrival <= now:
            due, self._next_arrival = self._next_arrival, self._next_arrival + self._gap()
            if due >= self._end:
                self._next_arrival = math.inf
                return
            if due >= self._begin:
                self._late += now - due
            self._request(self._next_connection(), due)

    def _next_connection(self) -> Connection:
        """Returns the next connection round-robin; with HTTP/1.1, the first idle one, or else the first."""
        if self._plan.http_headers is None:
            return next(self._turns)
        return next((one for one in self._connections if one.idle), self._connections[0])

    def _reconnect_and_expire(self, now: float) -> None:
        for connection in self._connections:
            if not connection.open:
                connection.connect()
            connection.expire(now)

    def _exchange(self, seconds: float) -> None:
        """Flushes pending output and waits up to `seconds` for input."""
        for connection in self._connections:
            if connection.unsent and connection.open:
                connection.flush()
        sockets = {one.socket: one for one in self._connections if one.open}
        blocked = [one.socket for one in sockets.values() if one.unsent]
        # Only select supports timeouts below a millisecond.
        for readable in select.select(sockets, blocked, (), max(0.0, seconds))[0]:
            connection = sockets[readable]
            connection.receive()
            if connection.was_ready and not connection.open:
                self._next_check = 0.0  # a connection that was established and then closed is reopened immediately
