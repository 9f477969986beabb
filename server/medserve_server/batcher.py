"""Joins the rows of waiting requests into one run of the model, and gives each its own rows back."""

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from medserve_server.errors import DeadlineExceeded, InferenceFailed, Overloaded, ServingError
from medserve_server.session import Tensors

log = logging.getLogger(__name__)

Arrays = dict[str, NDArray[np.generic]]


@dataclass(slots=True)
class _Waiting:
    """One request in the queue."""

    inputs: Tensors
    rows: int
    outputs: tuple[str, ...]
    deadline: float | None
    future: asyncio.Future[Arrays]
    since: float = field(default_factory=time.monotonic)

    @property
    def key(self) -> Hashable:
        """Requests with equal keys may share a batch."""
        return self.outputs, tuple((name, array.dtype, array.shape[1:]) for name, array in self.inputs.items())


class Batcher:
    """A queue that is emptied into one batch whenever the model is free: nothing waits for a timer.

    Args:
        run: the model; takes joined inputs and the names of the outputs.
        max_rows: rows of one batch; 0 never joins requests.
        max_pending: requests in the queue.
        observe: called after each run that succeeded with its rows, the seconds that each of its
            requests waited, and the seconds that it took.
    """

    def __init__(
        self,
        run: Callable[[Tensors, Sequence[str]], Arrays],
        *,
        max_rows: int,
        max_pending: int,
        observe: Callable[[int, list[float], float], None],
    ) -> None:
        self._run = run
        self._max_rows = max_rows
        self._max_pending = max_pending
        self._observe = observe
        self._queue: deque[_Waiting] = deque()
        self._worker: asyncio.Task[None] | None = None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="inference")

    def __len__(self) -> int:
        """Requests that wait."""
        return len(self._queue)

    def submit(
        self, inputs: Tensors, rows: int, outputs: tuple[str, ...], deadline: float | None
    ) -> asyncio.Future[Arrays]:
        """Queues a request; the future gives its rows of the outputs. Cancel it to withdraw the request.

        Args:
            inputs: arrays with `rows` rows each, where requests are joined.
            rows: their number.
            outputs: names of the wanted outputs.
            deadline: on the clock of `time.monotonic`; None: no deadline.

        Raises:
            Overloaded: the queue is full.
        """
        if len(self._queue) >= self._max_pending:
            raise Overloaded(f"{len(self._queue)} requests are waiting for this model already; try again later")
        loop = asyncio.get_running_loop()
        waiting = _Waiting(inputs, rows, outputs, deadline, loop.create_future())
        self._queue.append(waiting)
        if self._worker is None:
            self._worker = loop.create_task(self._empty_queue())
        return waiting.future

    def close(self) -> None:
        """Ends the thread of the model. Call it when no request is left."""
        self._thread.shutdown()

    async def _empty_queue(self) -> None:
        try:
            while batch := self._next_batch():
                await self._answer(batch)
        finally:
            self._worker = None

    def _next_batch(self) -> list[_Waiting]:
        """Takes requests from the head of the queue as long as they fit together."""
        batch: list[_Waiting] = []
        rows = 0
        while self._queue:
            head = self._queue[0]
            if head.future.done():  # cancelled by its caller
                self._queue.popleft()
                continue
            if head.deadline is not None and time.monotonic() >= head.deadline:
                self._queue.popleft()
                head.future.set_exception(DeadlineExceeded("the deadline passed while the request waited"))
                continue
            if batch and (rows + head.rows > self._max_rows or head.key != batch[0].key):
                break
            batch.append(self._queue.popleft())
            rows += head.rows
        return batch

    async def _answer(self, batch: list[_Waiting]) -> None:
        started = time.monotonic()
        try:
            results = await asyncio.get_running_loop().run_in_executor(self._thread, self._run_joined, batch)
        except Exception as error:  # noqa: BLE001 - ONNX Runtime has no base of its own
            # Which requests are to blame is unknown: each gets a run of its own.
            if len(batch) > 1:
                for waiting in batch:
                    if not waiting.future.done():
                        await self._answer([waiting])
                return
            _fail(batch[0], error)
            return
        took = time.monotonic() - started
        self._observe(sum(waiting.rows for waiting in batch), [started - waiting.since for waiting in batch], took)
        for waiting, result in zip(batch, results, strict=True):
            if not waiting.future.done():
                waiting.future.set_result(result)

    def _run_joined(self, batch: list[_Waiting]) -> list[Arrays]:
        """Runs in the model's thread: joins, runs, and cuts the outputs along the same rows."""
        if len(batch) == 1 and self._max_rows == 0:
            return [self._run(batch[0].inputs, batch[0].outputs)]
        inputs = (
            batch[0].inputs
            if len(batch) == 1
            else {name: np.concatenate([waiting.inputs[name] for waiting in batch]) for name in batch[0].inputs}
        )
        outputs = self._run(inputs, batch[0].outputs)
        rows = sum(waiting.rows for waiting in batch)
        for name, array in outputs.items():
            if array.ndim == 0 or array.shape[0] != rows:
                raise InferenceFailed(f"output {name} has shape {list(array.shape)} for {rows} rows of input")
        results = []
        start = 0
        for waiting in batch:
            end = start + waiting.rows
            results.append({name: array[start:end] for name, array in outputs.items()})
            start = end
        return results


def _fail(waiting: _Waiting, error: Exception) -> None:
    if waiting.future.done():
        return
    if not isinstance(error, ServingError):
        log.error("a model failed on a request: %s", error)
        error = InferenceFailed("the model failed on this request; the server's log says why")
    waiting.future.set_exception(error)
