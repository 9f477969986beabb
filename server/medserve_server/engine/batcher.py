"""Dynamic batching: joins queued requests into one model run and returns each request its own rows."""

import logging
import math
import re
import threading
import time
from collections.abc import Callable, Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from medserve_server.admission import MARGIN, UsualTime, check_wait, start_seconds
from medserve_server.engine.plan import Place, Plan
from medserve_server.engine.session import OVERDUE, Tensors
from medserve_server.engine.work import DEFAULT_PRIORITY, Arrays, Deliver, Outcome, Work
from medserve_server.errors import (
    DeadlineExceeded,
    InferenceFailed,
    Overloaded,
    ServingError,
    Unavailable,
    printable,
)
from medserve_server.supervise import report, reporting

log = logging.getLogger(__name__)

EXPIRED = "the deadline passed while the request was queued"
FAILED_NODE = re.compile(r" while running .{1,200}? node\. Name:'.{0,200}?'")
HANGS = "this model is suspended because a run hangs; try another server"
CLOSED = "this model is no longer served; try another server"
FAILED = "internal server error; see the server log"


class Batcher:
    """A request queue with dynamic batching.

    The batcher owns no threads: after `submit`, the caller starts as many threads as `reserve` returns, and each calls
    `run_reserved`, which runs batches until the queue is empty. An additional thread starts only if a batch is queued
    that no later request can join; otherwise two threads would split one batch into two smaller ones, which cost more
    per row.

    Args:
        run: runs the model on the joined inputs and returns the named outputs.
        max_rows: maximum number of rows in a batch; 0 disables batching.
        max_pending: maximum number of queued requests.
        runs: maximum number of threads that run the model concurrently.
        sizes: batch sizes, ascending; a batch is padded to the next of them by repeating its last row. If empty,
            batches are not padded.
        max_delay: maximum time in seconds that the oldest request waits for the batch to fill; 0 disables waiting.
        observe: called after each successful run with its number of rows, the queueing time of each of its requests
            in seconds, and the duration of the run in seconds.
    """

    def __init__(
        self,
        run: Callable[[Tensors, Sequence[str]], Arrays],
        *,
        max_rows: int,
        max_pending: int,
        runs: int = 1,
        max_delay: float = 0.0,
        sizes: tuple[int, ...] = (),
        observe: Callable[[int, list[float], float], None],
    ) -> None:
        self._run = run
        self._max_rows = max_rows
        self._max_pending = max_pending
        self._max_delay = max_delay
        self._sizes = sizes
        self._observe = observe
        self._plan = Plan(max_rows, max_delay)
        self._lock = threading.Lock()  # guards the plan and the number of idle threads
        self._changed = threading.Condition(self._lock)
        self._runs = runs
        self._idle = runs  # threads that may still start running the model
        self._run_time = UsualTime()
        self._running: dict[int, tuple[float, list[Work]]] = {}  # start time and batch, by the batch's id
        self.closed = False
        self.suspended = False

    def __len__(self) -> int:
        """Returns the number of queued requests."""
        return self._plan.works

    def reserve(self) -> int:
        """Reserves threads for the queued batches; the caller must call `run_reserved` in as many as are returned."""
        if not self._idle:
            return 0
        with self._lock:
            count = self._starting(self._plan.surplus, self._plan.batches)
            self._idle -= count
        return count

    def submit(self, *parts: Work) -> None:
        """Queues one request, in one or more parts, behind all requests of the same or a higher priority.

        Raises:
            ServingError: as `check`; in that case, no part is queued.
        """
        first = parts[0]
        now = time.monotonic()
        if now >= self._plan.earliest:
            self._drop_expired(now)
        with self._lock:
            self._admit(first.rows, first.priority, now, first.deadline, parts)
            for part in parts:
                self._plan.add(part)
            if self._max_delay:
                self._changed.notify_all()

    def check(self, rows: int, priority: int, deadline: float | None) -> None:
        """Admission control: refuses a request that does not fit the queue or its deadline, before its body is decoded.

        Requests below the default priority may occupy at most half of the queue, so that they cannot crowd out the
        others. Requests that would most likely miss their deadline are refused, since they would only delay those
        behind them.

        Raises:
            Overloaded: the queue is full, or too long for the deadline.
            DeadlineExceeded: the deadline has already passed.
            Unavailable: the model is suspended or closed.
        """
        now = time.monotonic()
        if now >= self._plan.earliest:
            self._drop_expired(now)
        with self._lock:
            self._admit(rows, priority, now, deadline)

    def withdraw(self, *works: Work) -> None:
        """Cancels work: removes it from the queue and discards its outcome."""
        with self._lock:
            for work in works:
                work.cancelled = True
                self._plan.remove(work)

    def suspend(self, latest: float) -> None:
        """Fails runs that started before `latest`, all queued requests, and all new ones until `resume` is called."""
        with self._lock:
            self.suspended = True
            waiting = self._plan.clear()
        for key, (began, batch) in list(self._running.items()):
            if began <= latest and self._running.pop(key, None) is not None:
                _deliver_error(batch, OVERDUE, DeadlineExceeded)
        _deliver_error(waiting, HANGS, Unavailable)

    def resume(self) -> None:
        """Accepts work again."""
        self.suspended = False

    def close(self) -> None:
        """Fails all queued and new requests, and returns once no thread runs the model."""
        with self._lock:
            self.closed = True
            waiting = self._plan.clear()
            self._changed.notify_all()
        _deliver_error(waiting, CLOSED, Unavailable)
        with self._lock:
            self._changed.wait_for(lambda: self._idle == self._runs)

    def run_reserved(self) -> None:
        """Runs batches in this thread until the queue is empty.

        An internal error is reported and fails the affected requests only; the thread continues with the next batch.
        """
        while batch := self._next_batch():
            try:
                self._answer(batch)
            except BaseException as error:  # noqa: BLE001 - reported; the thread must continue
                report("batch", error)
                with reporting("batch"):
                    self._running.pop(id(batch), None)
                    _deliver_error(batch, FAILED, InferenceFailed)

    def _starting(self, surplus: int, batches: int) -> int:
        """Returns how many threads to start for `batches` queued batches, `surplus` of which no later work can join."""
        if surplus:
            return min(self._idle, surplus)
        return 1 if batches and self._idle == self._runs else 0

    def _sizes_of(self, rows: int) -> list[int]:
        """Returns the sizes of the parts into which a request with this many rows is split."""
        if rows <= self._max_rows or not self._max_rows:
            return [rows]
        whole, rest = divmod(rows, self._max_rows)
        return [self._max_rows] * whole + [rest] * (rest > 0)

    def _admit(self, rows: int, priority: int, now: float, deadline: float | None, parts: Sequence[Work] = ()) -> None:
        """Raises the errors of `check`. If `parts` is given, `rows` is the size of the first part.

        The queue is kept as the planned batches, so the number of runs ahead is exact. Each run is estimated to take
        the average run time, and a run in progress the rest of it. Later work of a higher priority is not anticipated.
        """
        left = math.inf if deadline is None else deadline - now
        if left <= 0:
            raise DeadlineExceeded(EXPIRED)
        if self.closed:
            raise Unavailable(CLOSED)
        if self.suspended:
            raise Unavailable(HANGS)
        waiting = self._plan.works
        room = self._max_pending if priority <= DEFAULT_PRIORITY else self._max_pending // 2
        if waiting >= (room or 1):
            raise Overloaded(f"{waiting} requests are already queued for this model; try again later")
        plan = self._plan
        own = len(parts) or 1 + rows // (self._max_rows or rows or 1)
        if left >= MARGIN * (plan.batches + own + 1) * self._run_time.seconds:
            return  # even if a single thread ran the whole queue
        if not plan.works and self._idle == self._runs:
            return  # no other request is ahead; the next run also corrects an outdated average run time
        sizes = [part.rows for part in parts] or self._sizes_of(rows)
        start = self._start(plan.place(sizes, priority, parts[0] if parts else None), now)
        if start:
            check_wait("the queue of this model", start + self._run_time.seconds, left)

    def _start(self, place: Place, now: float) -> float:
        """Estimates the seconds until a thread is idle for the last batch of work at this place."""
        starting = self._starting(place.surplus, 1)
        if place.runs <= starting:
            return 0.0
        usual = self._run_time.seconds
        busy = [max(0.0, began + usual - now) for began, _ in list(self._running.values())]
        busy += [0.0] * (self._runs - self._idle - len(busy))  # between two runs, or waiting for a batch to fill
        busy += [usual] * starting
        return start_seconds(busy, place.runs - starting - 1, usual)

    def _next_batch(self) -> list[Work]:
        """Returns the next batch; if there is none, releases the thread and returns an empty list."""
        try:
            if self._max_delay:
                self._wait_for_more()
            now = time.monotonic()
            if now >= self._plan.earliest:
                self._drop_expired(now)
            with self._lock:
                if batch := self._plan.take():
                    return batch
                self._release()  # under the lock, so that work submitted after this finds an idle thread
        except BaseException as error:  # noqa: BLE001 - reported
            report("queue", error)
            with self._lock:
                self._release()
                lost = self._plan.clear()
            _deliver_error(lost, FAILED, InferenceFailed)
        return []

    def _drop_expired(self, now: float) -> None:
        """Fails queued work whose deadline has passed."""
        with self._lock:
            late = self._plan.expire(now)
        _deliver_error(late, EXPIRED, DeadlineExceeded)

    def _release(self) -> None:
        self._idle += 1
        if self.closed:
            self._changed.notify_all()

    def _wait_for_more(self) -> None:
        """Waits until the next batch is full, another batch is queued behind it, or its delay has elapsed."""
        with self._lock:
            while (left := self._plan.due - time.monotonic()) > 0:
                self._changed.wait(left)

    def _answer(self, batch: list[Work]) -> None:
        started = time.monotonic()
        self._running[id(batch)] = started, batch
        try:
            results = self._run_joined(batch)
        except BaseException as error:  # noqa: BLE001 - ONNX Runtime's exceptions have no common base class
            if self._running.pop(id(batch), None) is None:
                return  # the run hung, and `suspend` has already delivered the error
            _note_run(batch, started)
            if len(batch) == 1 or isinstance(error, DeadlineExceeded):
                failure = _as_serving_error(error)
                deliver([(work, failure) for work in batch])
                return
            # It is unknown which requests caused the error, so each is run separately.
            for work in batch:
                if not work.withdrawn:
                    self._answer([work])
            return
        took = time.monotonic() - started
        if self._running.pop(id(batch), None) is None:
            return
        self._run_time.add(took)
        try:
            self._observe(sum(work.rows for work in batch), [started - work.since for work in batch], took)
        except Exception as error:  # noqa: BLE001 - reported; the requests are answered anyway
            report("metrics", error)
        _note_run(batch, started)
        deliver(list(zip(batch, results, strict=True)))

    def _run_joined(self, batch: list[Work]) -> list[Outcome]:
        """Joins the inputs, runs the model and splits the outputs back into the rows of each request."""
        rows = sum(work.rows for work in batch)
        if len(batch) == 1:
            inputs = batch[0].inputs
        else:
            inputs = {name: _join([work.inputs[name] for work in batch]) for name in batch[0].inputs}
        size = next((size for size in self._sizes if size >= rows), rows)
        if size > rows:
            inputs = {name: np.concatenate([x, np.repeat(x[-1:], size - rows, axis=0)]) for name, x in inputs.items()}
        outputs = self._run(inputs, batch[0].outputs)
        if self._max_rows == 0:
            return [outputs]
        for name, array in outputs.items():
            if array.ndim == 0 or array.shape[0] != size:
                raise InferenceFailed(f"output {name} has shape {list(array.shape)} for {size} rows of input")
        if size > rows:
            outputs = {name: array[:rows] for name, array in outputs.items()}
        if len(batch) == 1:
            return [outputs]
        results: list[Outcome] = []
        start = 0
        for work in batch:
            end = start + work.rows
            results.append({name: array[start:end] for name, array in outputs.items()})
            start = end
        return results


def _join(arrays: list[NDArray[np.generic]]) -> NDArray[np.generic]:
    """Concatenates along the rows; unlike np.concatenate, does not release and reacquire the GIL for every array."""
    first = arrays[0]
    if first.dtype.hasobject:
        return np.concatenate(arrays)
    rows = sum(map(len, arrays))
    return np.frombuffer(b"".join([array.data for array in arrays]), first.dtype).reshape(rows, *first.shape[1:])


def _note_run(batch: list[Work], started: float) -> None:
    finished = time.monotonic()
    for work in batch:
        if work.record is not None:
            work.record.ran(started, finished)


def deliver(outcomes: list[tuple[Work, Outcome]]) -> None:
    """Passes outcomes to their `deliver` callbacks, with one call per callback; never raises.

    If a callback fails, the exception is reported and its requests receive an InferenceFailed instead.
    """
    by_callback: dict[Deliver, list[tuple[Work, Outcome]]] = {}
    for work, outcome in outcomes:
        if work.answered or work.withdrawn:
            continue
        work.answered = True
        if (group := by_callback.get(work.deliver)) is None:
            group = by_callback[work.deliver] = []
        group.append((work, outcome))
    for callback, group in by_callback.items():
        try:
            callback(group)
        except Exception as error:  # noqa: BLE001 - reported
            report("delivery", error)
            for work, _ in group:
                try:
                    callback([(work, InferenceFailed(FAILED))])
                except Exception as again:  # noqa: BLE001 - reported
                    report("delivery", again)


def _deliver_error(works: Iterable[Work], message: str, kind: type[ServingError]) -> None:
    deliver([(work, kind(message)) for work in works])


def _as_serving_error(error: BaseException) -> ServingError:
    if isinstance(error, ServingError):
        return error
    # The error's text is not logged: for a value that is out of range, ONNX Runtime includes the value.
    node = FAILED_NODE.search(str(error))
    log.error("a model failed on a request: %s%s", type(error).__name__, printable(node[0]) if node else "")
    return InferenceFailed("the model failed on this request; see the server log")
