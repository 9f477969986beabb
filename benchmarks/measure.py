"""Applies a load to a running server, and measures throughput, latency, CPU time and memory."""

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
"""Maximum difference of a probability from that of ONNX Runtime in this process."""


@dataclass(frozen=True, slots=True)
class Shape:
    """A load, independent of the server."""

    rows: int
    in_flight: int
    stream: bool = False

    @property
    def label(self) -> str:
        """Name of the load in tables and in serving.json."""
        kind = "stream" if self.stream else "unary"
        return f"{kind}, {self.in_flight} in flight" + (f", {self.rows} images each" if self.rows > 1 else "")


@dataclass(frozen=True, slots=True)
class Outcome:
    """Results, without the warm-up. Latencies are in ms, CPU times in µs per image."""

    images_per_second: float
    p50: float
    p99: float
    server_cpu: float
    client_cpu: float
    memory_mib: float
    ready_after: float
    """Seconds from the server's start to its first response."""


@dataclass(slots=True)
class Meter:
    """Reads the server's CPU time at the beginning and at the end of the measurement.

    The requests that complete between the two readings are counted too, so that delayed readings, by up to 0.1 s, do
    not bias the CPU time per request.
    """

    mark: str
    begin: float
    end: float
    readings: list[tuple[int, float]] = field(default_factory=list)

    def __call__(self, progress: Progress) -> None:
        """Progress callback of the load, called ten times per second."""
        if progress.elapsed >= (self.begin, self.end, float("inf"))[len(self.readings)]:
            self.readings.append((progress.succeeded, cpu_seconds(self.mark)))

    def per_request(self) -> float:
        """Returns the CPU time per request in seconds."""
        (count, cpu), (later_count, later_cpu) = self.readings
        return (later_cpu - cpu) / (later_count - count)


def measure(server: Server, port: int, started: Started, shape: Shape, seconds: float, warmup: float) -> Outcome:
    """Warms the server up, measures it, and checks a response.

    Raises:
        RuntimeError: Requests failed, or a response was wrong.
    """
    meter = Meter(started.mark, warmup, warmup + seconds - 0.15)
    payloads = [requests.encode(images, server.protocol) for images in requests.image_batches(shape.rows)]
    result = _load(server, port, shape, payloads, seconds, warmup)(meter)
    if result.errors or not result.completed:
        raise RuntimeError(f"{result.completed} of {result.sent} requests succeeded; errors: {dict(result.errors)}")
    _check(requests.decode(result.sample, server.protocol, stream=shape.stream), shape.rows)
    return Outcome(
        images_per_second=result.throughput * shape.rows,
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
    """Returns a function that runs the load; over HTTP/1.1, with a connection for each request in flight."""
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
    """Checks probabilities against ONNX Runtime, so that a fast but wrong server is not reported."""
    session = ort.InferenceSession(MODEL, providers=["CPUExecutionProvider"])
    (expected,) = session.run(["probabilities"], {"image": requests.image_batches(rows)[0]})
    difference = float(np.abs(probabilities - expected).max())
    if difference > TOLERANCE:
        raise RuntimeError(f"the probabilities differ from ONNX Runtime's by {difference}, expected up to {TOLERANCE}")
