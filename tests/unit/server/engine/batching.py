"""A model that doubles its rows, and a caller that submits requests for it to a batcher."""

import threading
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np

from medserve_server.engine.batcher import Batcher
from medserve_server.engine.session import Tensors
from medserve_server.engine.work import DEFAULT_PRIORITY, Arrays, Outcome, Work
from waiting import PATIENCE


class Doubling:
    """Doubles its rows; fails on a batch with a negative one. Records the batches and can be blocked."""

    def __init__(self) -> None:
        self.batches: list[int] = []
        self.open = threading.Event()
        self.open.set()

    def __call__(self, inputs: Tensors, outputs: Sequence[str]) -> Arrays:
        self.open.wait(PATIENCE)
        x = np.asarray(inputs["x"], np.float64)
        self.batches.append(len(x))
        if (x < 0).any():
            raise RuntimeError("negative")
        return dict.fromkeys(outputs, x * 2)


def make(model: Doubling, max_rows: int = 8, max_pending: int = 1000) -> Batcher:
    return Batcher(model, max_rows=max_rows, max_pending=max_pending, observe=lambda *_: None)


def rows(*values: float) -> Tensors:
    return {"x": np.array(values, np.float64).reshape(-1, 1)}


class Caller:
    """Submits requests to a batcher from a separate thread, as transports do, and records the outcomes."""

    def __init__(self, batcher: Batcher) -> None:
        self.batcher = batcher
        self.outcomes: dict[object, list[Outcome]] = {}
        self.pool = ThreadPoolExecutor(2)
        self.runs: list[Future[None]] = []

    def submit(
        self,
        tag: object,
        inputs: Tensors,
        outputs: tuple[str, ...] = ("y",),
        deadline: float | None = None,
        priority: int = DEFAULT_PRIORITY,
    ) -> Work:
        work = Work(inputs, len(inputs["x"]), outputs, self.deliver, deadline, priority, tag)
        self.batcher.submit(work)
        return work

    def run(self) -> None:
        """Starts a thread if the batcher requests it, as a model does."""
        self.runs += [self.pool.submit(self.batcher.run_reserved) for _ in range(self.batcher.reserve())]

    def wait(self) -> None:
        """Waits until the queue is empty."""
        for run in self.runs:
            run.result(PATIENCE)

    def finish(self) -> None:
        self.run()
        self.wait()
        self.pool.shutdown()

    def deliver(self, outcomes: list[tuple[Work, Outcome]]) -> None:
        for work, outcome in outcomes:
            self.outcomes.setdefault(work.tag, []).append(outcome)
