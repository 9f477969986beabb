"""Configuration and result of a load test of any gRPC method or HTTP path of any server."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from medserve_client.channel import Tls
from medserve_client.loadtest.protocol.http2 import Outcome

_CONNECTIONS_PER_PROCESS = 900
"""The file descriptor limit of `select`, less the descriptors that a process has open anyway."""


@dataclass(frozen=True, slots=True)
class LoadPlan:
    """Load on one method of a server.

    Attributes:
        target: host:port.
        method: method path, e.g. "/medserve.v1.PatientRisk/Predict", or the path of HTTP POST requests.
        payloads: serialized requests, sent in turn.
        concurrency: closed loop: total number of requests in flight, over all connections.
        rate: open loop: requests per second, with Poisson arrivals. Exactly one of `concurrency` and `rate` is
            above 0.
        outcome: None for unary calls. For a bidirectional streaming method: a module-level function that returns the
            gRPC status, e.g. "OK", of one serialized response; responses come in request order.
        duration: length of the measurement in seconds.
        warmup: seconds of the same load before the measurement.
        timeout: seconds after which a request has failed.
        http_headers: None for gRPC over HTTP/2. For HTTP/1.1: the headers of each request besides Host, Content-Length
            and Authorization. HTTP statuses are counted as the corresponding gRPC statuses, and each request has
            exclusive use of a connection while in flight.
        connections: total number of connections, over all processes. With HTTP/1.1 and a closed loop, it must equal
            `concurrency`.
        processes: number of processes that generate the load.
        seed: random seed of the arrival times.
        tls: TLS credentials; None for plaintext.
        token: bearer token sent with each call, unencrypted without `tls`.
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
            raise ValueError("exactly one of concurrency and rate must be above 0")
        if not self.payloads:
            raise ValueError("payloads is empty; expected at least one serialized request")
        if not 1 <= self.processes <= self.connections:
            raise ValueError(f"processes is {self.processes}; expected from 1 to connections ({self.connections})")
        if 0 < self.concurrency < self.connections:
            raise ValueError(f"connections is {self.connections}; expected at most concurrency ({self.concurrency})")
        if self.connections > _CONNECTIONS_PER_PROCESS * self.processes:
            most = f"{_CONNECTIONS_PER_PROCESS} for each process"
            raise ValueError(f"connections is {self.connections}; expected at most {most}")
        if self.http_headers is None:
            return
        if self.outcome is not None:
            raise ValueError("outcome applies to streams; expected None for HTTP/1.1")
        if self.concurrency and self.connections != self.concurrency:
            raise ValueError(
                f"connections is {self.connections}; expected as many as concurrency ({self.concurrency}) for HTTP/1.1"
            )


@dataclass(frozen=True, slots=True, eq=False)
class LoadResult:
    """Result of a load test, over the requests that were due during the measurement.

    Attributes:
        latencies: float64 [N], latency in seconds of each successful request, from its due time to its response.
        errors: number of requests by gRPC status other than OK, e.g. {"UNAVAILABLE": 3}.
        sent: total number of requests.
        completed: requests that succeeded during the measurement, whenever they were due.
        elapsed: length of the measurement in seconds.
        lateness: mean delay in seconds between the due time and the sending of a request; 0 in a closed loop. If it is
            not small relative to the latencies, this machine was too busy to generate the load.
        cpu_seconds: CPU time of the load generator processes during the measurement.
        sample: one serialized response.
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
        """Successful requests per second."""
        return self.completed / self.elapsed

    @property
    def offered(self) -> float:
        """Sent requests per second."""
        return self.sent / self.elapsed

    def percentile(self, percent: float) -> float:
        """Returns a percentile of the latencies in seconds; NaN if no request succeeded."""
        return float(np.percentile(self.latencies, percent)) if self.latencies.size else float("nan")
