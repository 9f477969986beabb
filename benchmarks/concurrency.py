"""Measures the gain and the cost of concurrent runs of a model: `python -m benchmarks.concurrency`.

Uses the server's batcher and session without a network; a fixed number of callers (closed loop) each submit a row as
soon as their previous one is answered. Prints a Markdown table.
"""

import argparse
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from medserve_server.config import Settings
from medserve_server.engine.batcher import Batcher
from medserve_server.engine.session import Session
from medserve_server.engine.work import Outcome, Work
from medserve_server.registry.integrity import read_model

MODEL = Path(__file__).parents[1] / "models/chest-xray/1/model.onnx"
RUNS = (1, 2, 4, 8)
IN_FLIGHT = (1, 8, 64, 128, 512)
MAX_ROWS = 64


@dataclass(frozen=True, slots=True)
class Figures:
    """Results for one number of concurrent runs and of callers."""

    rows_per_second: float
    cpu_microseconds: float
    """CPU time per row."""
    p50: float
    """Milliseconds from a row's submission to its outcome."""
    p99: float
    batch: float
    """Mean number of rows per run."""
    at_once: float
    """Mean number of runs in progress."""


class Load:
    """A closed-loop load on one batcher."""

    def __init__(self, session: Session, runs: int) -> None:
        self._session = session
        self._batcher = Batcher(session.run, max_rows=MAX_ROWS, max_pending=10_000, runs=runs, observe=self._observe)
        self._threads = ThreadPoolExecutor(runs)
        self._row = {spec.name: np.zeros((1, *spec.shape[1:]), np.uint8) for spec in session.inputs}
        self._outputs = tuple(spec.name for spec in session.outputs)
        self._lock = threading.Lock()
        self._latencies: list[float] = []
        self._runs: list[tuple[int, float]] = []
        self._measuring = False
        self._stopping = False

    def measure(self, in_flight: int, warmup: float, seconds: float) -> Figures:
        """Applies the load for `warmup` seconds, and then measures it for `seconds`."""
        for _ in range(in_flight):
            self._submit()
        self._wake()
        time.sleep(warmup)
        self._measuring = True
        cpu, clock = time.process_time(), time.perf_counter()
        time.sleep(seconds)
        took, used = time.perf_counter() - clock, time.process_time() - cpu
        self._measuring = False
        self._stopping = True
        self._threads.shutdown()
        rows = len(self._latencies)
        p50, p99 = np.quantile(self._latencies, (0.5, 0.99)) * 1000
        return Figures(
            rows / took,
            used / rows * 1e6,
            p50,
            p99,
            sum(count for count, _ in self._runs) / len(self._runs),
            sum(each for _, each in self._runs) / took,
        )

    def _submit(self) -> None:
        self._batcher.submit(Work(self._row, 1, self._outputs, self._deliver))

    def _wake(self) -> None:
        for _ in range(self._batcher.reserve()):
            self._threads.submit(self._batcher.run_reserved)

    def _deliver(self, outcomes: list[tuple[Work, Outcome]]) -> None:
        now = time.monotonic()
        if self._measuring:
            self._latencies += [now - work.since for work, _ in outcomes]
        if self._stopping:
            return
        for _ in outcomes:
            self._submit()
        self._wake()

    def _observe(self, rows: int, _: list[float], seconds: float) -> None:
        if self._measuring:
            self._runs.append((rows, seconds))


def main() -> None:
    """Prints a line for each number of concurrent runs and of callers."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, default=MODEL)
    parser.add_argument("--seconds", type=float, default=3.0)
    arguments = parser.parse_args()
    file = read_model(arguments.model, max_bytes=2**30, listed=None, public_key=None)
    session = Session(file, "cpu", Settings(threads=1))
    session.warm_up(MAX_ROWS)
    print("| in flight | runs | rows per run | concurrent runs | rows/s | CPU per row, µs | p50, ms | p99, ms |")  # noqa: T201
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")  # noqa: T201
    for in_flight in IN_FLIGHT:
        for runs in RUNS:
            found = Load(session, runs).measure(in_flight, 0.5, arguments.seconds)
            print(  # noqa: T201
                f"| {in_flight} | {runs} | {found.batch:.0f} | {found.at_once:.1f} | {found.rows_per_second:,.0f} "
                f"| {found.cpu_microseconds:,.0f} | {found.p50:.1f} | {found.p99:.1f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
