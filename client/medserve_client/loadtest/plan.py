"""What a load test is to do, and what came of it. Plain values, for any gRPC method or HTTP path of any server."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from medserve_client.channel import Tls
from medserve_client.loadtest.protocol.http2 import Outcome

_CONNECTIONS_OF_A_PROCESS = 900
"""As many files as `select` takes, less those that a process has open anyway."""


@dataclass(frozen=True, slots=True)
class LoadPlan:
    """A load of one kind on one method of a server.

    Attributes:
        target: host:port.
        method: path of the method, e.g. "/medserve.v1.PatientRisk/Predict", or where requests are posted to.
        payloads: serialized requests, sent in turn.
        concurrency: closed loop: requests in flight in total, over all connections.
        rate: open loop: requests per second, at random times as of many users who know nothing of each other
            (Poisson). Exactly one of `concurrency` and `rate` is above 0.
        outcome: None for unary calls. For a method with streams both ways: a function of a module that tells the
            gRPC status, e.g. "OK", of one serialized answer; answers come in the order of the requests.
        duration: seconds measured.
        warmup: seconds of the same load before them.
        timeout: seconds after which a request has failed.
        http_headers: None for gRPC over HTTP/2. For HTTP/1.1: the headers of each request, beside Host, Content-Length
            and that of the token. A request counts by the gRPC status that stands for its HTTP status, and has a
            connection for itself while it is in flight.
        connections: in total, over all processes. With HTTP/1.1 and a closed loop as many as `concurrency`.
        processes: that make the load.
        seed: of the random times.
        tls: how connections are encrypted; None for plain text.
        token: is sent with each call, unencrypted without `tls`.
    """

    target: str
    method: str
    payloads: Sequence[bytes] = field(repr=False)
    concurrency: int = 0
    rate: float = 0.0
    outcome: Outcome | None = None
    http_headers: Sequence[tuple[str, str]] | None = None
    duration: float = 10.0
    warmup: float = 2.0
    timeout: float = 30.0
    connections: int = 1
    processes: int = 1
    seed: int = 0
    tls: Tls | None = None
    token: str | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        if (self.concurrency > 0) == (self.rate > 0):
            raise ValueError("one of concurrency and rate must be above 0, and not both")
        if not self.payloads:
            raise ValueError("payloads is empty; expected at least one serialized request")
        if not 1 <= self.processes <= self.connections:
            raise ValueError(f"processes is {self.processes}; expected from 1 to connections ({self.connections})")
        if 0 < self.concurrency < self.connections:
            raise ValueError(f"connections is {self.connections}; expected at most concurrency ({self.concurrency})")
        if self.connections > _CONNECTIONS_OF_A_PROCESS * self.processes:
            most = f"{_CONNECTIONS_OF_A_PROCESS} for each process"
            raise ValueError(f"connections is {self.connections}; expected at most {most}")
        if self.http_headers is None:
            return
        if self.outcome is not None:
            raise ValueError("outcome is of streams; expected none for HTTP/1.1")
        if self.concurrency and self.connections != self.concurrency:
            raise ValueError(
                f"connections is {self.connections}; expected as many as concurrency ({self.concurrency}) for HTTP/1.1"
            )


@dataclass(frozen=True, slots=True, eq=False)
class LoadResult:
    """What came of a plan. It counts the requests that were due in the measured time.

    Attributes:
        latencies: float64, seconds of each request that succeeded, from when it was due to its answer.
        errors: how many requests ended with each other gRPC status, e.g. {"UNAVAILABLE": 3}.
        sent: requests in all.
        completed: requests that succeeded within the measured time, whenever they were due.
        elapsed: the measured seconds.
        lateness: mean seconds between when a request was due and when it was sent: 0 in a closed loop, and where it
            is not small against the latencies, this machine was too busy to make the load.
        cpu_seconds: CPU time of the processes that made the load, in the measured time.
        sample: one answer of the server, serialized.
    """

    latencies: NDArray[np.float64] = field(repr=False)
    errors: Counter[str]
    sent: int
    completed: int
    elapsed: float
    lateness: float
    cpu_seconds: float
    sample: bytes = field(repr=False)

    @property
    def throughput(self) -> float:
        """Requests per second that succeeded."""
        return self.completed / self.elapsed

    @property
    def offered(self) -> float:
        """Requests per second that were sent."""
        return self.sent / self.elapsed

    def percentile(self, percent: float) -> float:
        """The latency that this share of the successful requests did not exceed; NaN where none succeeded."""
        return float(np.percentile(self.latencies, percent)) if self.latencies.size else float("nan")
