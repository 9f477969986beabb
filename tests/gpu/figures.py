"""Benchmark of GPU and CPU: throughput and latency of medserve and of ONNX Runtime alone, as a table and as JSON."""

import json
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import grpc
import numpy as np
import onnxruntime as ort
import pytest

from gpu.answers import Array, infer, request
from gpu.device import memory_mib, name
from medserve_client.loadtest import LoadPlan, run
from medserve_server.engine.providers import GPU_PROVIDERS, ONNX_NAMES, Provider
from servers.server_process import ServerProcess
from waiting import PATIENCE

SECONDS = 0.5
FEWEST = 4
"""Minimum number of calls of a measurement, regardless of duration."""
METHOD = "/inference.GRPCInferenceService/ModelInfer"


@dataclass(frozen=True, slots=True)
class Figure:
    """Measurement of one model, batch size, provider and way to run it."""

    model: str
    rows: int
    provider: Provider
    way: str
    rows_per_second: float
    p50: float
    """Latency in milliseconds."""
    p99: float
    memory_mib: float | None
    """Memory of the server, on the GPU or resident; None for ONNX Runtime alone, which runs in the tests' process."""


FIGURES: pytest.StashKey[list[Figure]] = pytest.StashKey()


def alone(path: Path, provider: Provider, tensor: str, rows: Array) -> Figure:
    """Measures sequential calls of ONNX Runtime with its defaults."""
    session = ort.InferenceSession(path, providers=[ONNX_NAMES[provider]])
    session.run(None, {tensor: rows})
    latencies: list[float] = []
    while len(latencies) < FEWEST or sum(latencies) < SECONDS:
        began = time.perf_counter()
        session.run(None, {tensor: rows})
        latencies.append(time.perf_counter() - began)
    p50, p99 = np.percentile(latencies, (50, 99)) * 1000
    speed = len(rows) * len(latencies) / sum(latencies)
    return Figure(path.parent.parent.name, len(rows), provider, "ONNX Runtime alone", speed, p50, p99, None)


def served(server: ServerProcess, model: str, provider: Provider, tensor: str, rows: Array, in_flight: int) -> Figure:
    """Measures calls of a server, `in_flight` concurrently."""
    with grpc.insecure_channel(server.target) as channel:
        infer(channel, model, tensor, rows)
        began = time.monotonic()
        infer(channel, model, tensor, rows)
        # All calls may end at once with the batch that they share, so at least two rounds are needed.
        seconds = max(SECONDS, max(FEWEST, 2 * in_flight) * (time.monotonic() - began))
    payload = request(model, tensor, rows).SerializeToString()
    result = run(
        LoadPlan(
            server.target,
            METHOD,
            [payload],
            concurrency=in_flight,
            duration=seconds,
            warmup=seconds / 4,
            timeout=PATIENCE,
        )
    )
    assert not result.errors
    p50, p99 = result.percentile(50) * 1000, result.percentile(99) * 1000
    way = f"medserve, {in_flight} in flight"
    speed = result.throughput * len(rows)
    return Figure(model, len(rows), provider, way, speed, p50, p99, memory_mib(provider, server.process.pid))


def report(figures: list[Figure], folder: Path) -> str:
    """Writes gpu.json, or gpu-on-cpu.json if no GPU was used; returns the table."""
    on_gpu = any(figure.provider in GPU_PROVIDERS for figure in figures)
    folder.mkdir(exist_ok=True)
    path = folder / ("gpu.json" if on_gpu else "gpu-on-cpu.json")
    about = {"gpu": name() if on_gpu else None, "onnxruntime": ort.__version__}
    path.write_text(json.dumps(about | {"figures": [asdict(figure) for figure in figures]}, indent=1) + "\n")
    lines = ["| model | rows a call | provider | way | rows/s | p50, ms | p99, ms | memory, MiB |", "| --- " * 8 + "|"]
    for figure in sorted(figures, key=lambda one: (one.model, one.rows)):
        memory = "" if figure.memory_mib is None else f"{figure.memory_mib:,.0f}"
        lines.append(
            f"| {figure.model} | {figure.rows} | {figure.provider} | {figure.way} | {figure.rows_per_second:,.0f} "
            f"| {figure.p50:.2f} | {figure.p99:.2f} | {memory} |"
        )
    return "\n".join([*lines, f"Written to {path}", ""])
