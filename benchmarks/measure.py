"""Puts one load on a server that runs, and adds up what it cost the server."""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import onnxruntime as ort

from benchmarks import requests
from benchmarks.processes import Started, cpu_seconds, resident_mib
from benchmarks.servers import CERTIFICATE, MODEL, Server
from medserve_client.channel import Tls
from medserve_client.loadtest import LoadPlan, LoadResult, Progress, run

TOLERANCE = 1e-4
"""Most that a probability may differ from ONNX Runtime's in this process."""


@dataclass(frozen=True, slots=True)
class Shape:
    """A load, whichever server gets it."""

    rows: int
    in_flight: int
    stream: bool = False

    @property
    def label(self) -> str:
        """As the tables say it."""
        kind = "stream" if self.stream else "unary"
        return f"{kind}, {self.in_flight} in flight" + (f", {self.rows} pictures each" if self.rows > 1 else "")


@dataclass(frozen=True, slots=True)
class Outcome:
    """What was measured after the warm-up. Latencies are in ms, CPU times in µs per picture."""

    pictures_per_second: float
    p50: float
    p99: float
    server_cpu: float
    client_cpu: float
    memory_mib: float
    ready_after: float
    """Seconds from the server's start to its first answer."""


@dataclass(slots=True)
class Meter:
    """Reads the server's CPU time twice, at the begin and at the end of what is measured.

    The requests that ended between the two readings are counted too, so that it does not matter that they fall a
    tenth of a second beside the borders.
    """

    mark: str
    begin: float
    end: float
    readings: list[tuple[int, float]] = field(default_factory=list)

    def __call__(self, progress: Progress) -> None:
        """What the load calls ten times a second."""
        if progress.elapsed >= (self.begin, self.end, float("inf"))[len(self.readings)]:
            self.readings.append((progress.succeeded, cpu_seconds(self.mark)))

    def per_request(self) -> float:
        """Seconds."""
        (count, cpu), (later_count, later_cpu) = self.readings
        return (later_cpu - cpu) / (later_count - count)


def measure(server: Server, port: int, started: Started, shape: Shape, seconds: float, warmup: float) -> Outcome:
    """Warms up, checks an answer, and measures.

    Raises:
        RuntimeError: requests failed, or answers were wrong.
    """
    meter = Meter(started.mark, warmup, warmup + seconds - 0.15)
    payloads = [requests.encode(images, server.protocol) for images in requests.pictures(shape.rows)]
    result = _load(server, port, shape, payloads, seconds, warmup)(meter)
    if result.errors or not result.completed:
        raise RuntimeError(f"of {result.sent} requests {result.completed} succeeded; errors: {dict(result.errors)}")
    _check(requests.decode(result.sample, server.protocol, stream=shape.stream), shape.rows)
    return Outcome(
        pictures_per_second=result.throughput * shape.rows,
        p50=result.percentile(50) * 1e3,
        p99=result.percentile(99) * 1e3,
        server_cpu=meter.per_request() / shape.rows * 1e6,
        client_cpu=result.cpu_seconds / result.completed / shape.rows * 1e6,
        memory_mib=resident_mib(started.mark),
        ready_after=started.ready_after,
    )


def _load(
    server: Server, port: int, shape: Shape, payloads: list[bytes], seconds: float, warmup: float
) -> Callable[[Meter], LoadResult]:
    """The load, ready to be made: over HTTP/1.1 with a connection for each request in flight."""
    http = server.protocol != "grpc"
    method = requests.STREAM if shape.stream else requests.UNARY
    plan = LoadPlan(
        f"127.0.0.1:{port}",
        server.path if http else method,
        payloads,
        concurrency=shape.in_flight,
        connections=shape.in_flight if http else 1,
        http_headers=[("Content-Type", requests.CONTENT_TYPES[server.protocol])] if http else None,
        outcome=requests.stream_status if shape.stream else None,
        duration=seconds,
        warmup=warmup,
        tls=Tls(ca=CERTIFICATE) if server.tls else None,
    )
    return lambda meter: run(plan, meter)


def _check(probabilities: np.ndarray[tuple[int, ...], np.dtype[np.float32]], rows: int) -> None:
    """A fast wrong answer is no result."""
    session = ort.InferenceSession(MODEL, providers=["CPUExecutionProvider"])
    (expected,) = session.run(["probabilities"], {"image": requests.pictures(rows)[0]})
    difference = float(np.abs(probabilities - expected).max())
    if difference > TOLERANCE:
        raise RuntimeError(f"its probabilities differ from ONNX Runtime's by {difference}")
