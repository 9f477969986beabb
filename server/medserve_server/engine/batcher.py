"""Joins the rows of waiting requests into one run of the model, and gives each its own rows back."""

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

EXPIRED = "the deadline passed while the request waited"
FAILED_NODE = re.compile(r" while running .{1,200}? node\. Name:'.{0,200}?'")
HANGS = "this model hangs; another server may answer"
CLOSED = "this model is no longer served; another server may answer"
FAILED = "the server failed; its log says why"


class Batcher:
    """A queue of batches that are run whenever the model is free.

    It has no thread of its own: after `submit`, as many threads as `reserve` says have to call `run_reserved`. Each of
    them takes batch after batch until nothing waits. A further thread starts only where a batch waits that no later
    request could join: two threads would otherwise make two small batches out of one, which cost more a row.

    Args:
        run: the model; takes joined inputs and the names of the outputs.
        max_rows: rows of one batch; 0 never joins requests.
        max_pending: requests in the queue.
        runs: how many threads may run the model at once.
        sizes: rows that a batch is filled up to, by repeating its last row; none: batches are run as they come.
        max_delay: seconds that the oldest request may wait for the batch to fill up; 0 waits for nothing.
        observe: called after each run that succeeded with its rows, the seconds that each of its
            requests waited, and the seconds that it took.
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
        self._lock = threading.Lock()  # guards the plan and the number of free threads
        self._changed = threading.Condition(self._lock)
        self._runs = runs
        self._free = runs  # threads that may still begin to run the model
        self._usual = UsualTime()  # of a run
        self._under_way: dict[int, tuple[float, list[Work]]] = {}  # begin of the run and batch, by the batch's id
        self.closed = False
        self.suspended = False

    def __len__(self) -> int:
        """Requests that wait."""
        return self._plan.works

    def reserve(self) -> int:
        """How many threads the caller has to let call `run_reserved` for what waits to be run."""
        if not self._free:
            return 0
        with self._lock:
            count = self._starting(self._plan.surplus, self._plan.batches)
            self._free -= count
        return count

    def submit(self, *parts: Work) -> None:
        """Queues one request, in one or more parts, behind all of the same or a higher priority.

        Raises:
            ServingError: as `check`; no part is queued then.
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
        """Refuses work that there is no room or no time for, before it is read.

        Work of less than the usual priority may fill half of the queue, so that it can't shut out the rest. Work that
        would most likely come too late is refused: it would only make all that comes behind it late as well.

        Raises:
            Overloaded: the queue is full, or too long for the deadline.
            DeadlineExceeded: it has passed already.
            Unavailable: the model hangs or is closed.
        """
        now = time.monotonic()
        if now >= self._plan.earliest:
            self._drop_expired(now)
        with self._lock:
            self._admit(rows, priority, now, deadline)

    def withdraw(self, *works: Work) -> None:
        """Takes work out of the queue that nobody waits for any more; its outcome is not delivered."""
        with self._lock:
            for work in works:
                work.cancelled = True
                self._plan.remove(work)

    def suspend(self, latest: float) -> None:
        """Fails what has been running since before `latest`, what waits, and all that comes until `resume`."""
        with self._lock:
            self.suspended = True
            waiting = self._plan.clear()
        late = [key for key, (began, _) in list(self._under_way.items()) if began <= latest]
        for _, batch in [self._under_way.pop(key, (0.0, [])) for key in late]:
            _deliver_error(batch, OVERDUE, DeadlineExceeded)
        _deliver_error(waiting, HANGS, Unavailable)

    def resume(self) -> None:
        """Takes work again."""
        self.suspended = False

    def close(self) -> None:
        """Refuses all that waits and all that comes, and returns once no thread runs the model."""
        with self._lock:
            self.closed = True
            waiting = self._plan.clear()
            self._changed.notify_all()
        _deliver_error(waiting, CLOSED, Unavailable)
        with self._lock:
            self._changed.wait_for(lambda: self._free == self._runs)

    def run_waiting(self) -> None:
        """Runs the model in this thread until nothing waits, if a further thread is to start."""
        with self._lock:
            if not self._starting(self._plan.surplus, self._plan.batches):
                return
            self._free -= 1
        self.run_reserved()

    def run_reserved(self) -> None:
        """Runs the model in this thread until nothing waits.

        A failure of the batcher itself is reported, fails the requests that it concerns, and ends nothing else.
        """
        while batch := self._next_batch():
            try:
                self._answer(batch)
            except BaseException as error:  # noqa: BLE001 - reported; the thread has to go on
                report("batch", error)
                with reporting("batch"):
                    self._under_way.pop(id(batch), None)
                    _deliver_error(batch, FAILED, InferenceFailed)

    def _starting(self, surplus: int, batches: int) -> int:
        """Threads that begin to run at once where so many batches wait, `surplus` of which no later work can join."""
        if surplus:
            return min(self._free, surplus)
        return 1 if batches and self._free == self._runs else 0

    def _sizes_of(self, rows: int) -> list[int]:
        """The parts that a request of so many rows is split into."""
        if rows <= self._max_rows or not self._max_rows:
            return [rows]
        whole, rest = divmod(rows, self._max_rows)
        return [self._max_rows] * whole + [rest] * (rest > 0)

    def _admit(self, rows: int, priority: int, now: float, deadline: float | None, parts: Sequence[Work] = ()) -> None:
        """Raises as `check` does. `rows` are those of the first part, where it is known what the parts are.

        The queue is the plan of the runs to come, so that their number is exact. A run is expected to take the usual
        time, and those in progress what is left of it. Work of a higher priority that comes later is not foreseen.
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
            raise Overloaded(f"{waiting} requests are waiting for this model already; try again later")
        plan = self._plan
        own = len(parts) or 1 + rows // (self._max_rows or rows or 1)
        if left >= MARGIN * (plan.batches + own + 1) * self._usual.seconds:
            return  # even if only one thread ran what waits
        if not plan.works and self._free == self._runs:
            return  # no other request is ahead; and a usual time that has become wrong is corrected by the next run
        sizes = [part.rows for part in parts] or self._sizes_of(rows)
        start = self._start(plan.place(sizes, priority, parts[0] if parts else None), now)
        if start:
            check_wait("what waits for this model", start + self._usual.seconds, left)

    def _start(self, place: Place, now: float) -> float:
        """Seconds until a thread is free for the last batch of work at this place."""
        starting = self._starting(place.surplus, 1)
        if place.runs <= starting:
            return 0.0
        usual = self._usual.seconds
        busy = [max(0.0, began + usual - now) for began, _ in list(self._under_way.values())]
        busy += [0.0] * (self._runs - self._free - len(busy))  # between two runs, or waiting for a batch to fill up
        busy += [usual] * starting
        return start_seconds(busy, place.runs - starting - 1, usual)

    def _next_batch(self) -> list[Work]:
        """Takes the next batch; frees the thread where there is none."""
        try:
            if self._max_delay:
                self._wait_for_more()
            now = time.monotonic()
            if now >= self._plan.earliest:
                self._drop_expired(now)
            with self._lock:
                if batch := self._plan.take():
                    return batch
                self._release()  # under the lock: work that is submitted after this finds a free thread
        except BaseException as error:  # noqa: BLE001 - reported
            report("queue", error)
            with self._lock:
                self._release()
                lost = self._plan.clear()
            _deliver_error(lost, FAILED, InferenceFailed)
        return []

    def _drop_expired(self, now: float) -> None:
        """Fails what waits and has a deadline that has passed."""
        with self._lock:
            late = self._plan.expire(now)
        _deliver_error(late, EXPIRED, DeadlineExceeded)

    def _release(self) -> None:
        self._free += 1
        if self.closed:
            self._changed.notify_all()

    def _wait_for_more(self) -> None:
        """Lets the next batch wait until it is full, something waits behind it, or its time is over."""
        with self._lock:
            while (left := self._plan.due - time.monotonic()) > 0:
                self._changed.wait(left)

    def _answer(self, batch: list[Work]) -> None:
        started = time.monotonic()
        self._under_way[id(batch)] = started, batch
        try:
            results = self._run_joined(batch)
        except BaseException as error:  # noqa: BLE001 - ONNX Runtime's errors have no base of their own
            if self._under_way.pop(id(batch), None) is None:
                return  # it hung, and `suspend` has answered
            _note_run(batch, started)
            if len(batch) == 1 or isinstance(error, DeadlineExceeded):
                failure = _as_serving_error(error)
                deliver([(work, failure) for work in batch])
                return
            # Which requests are to blame is unknown: each gets a run of its own.
            for work in batch:
                if not work.withdrawn:
                    self._answer([work])
            return
        took = time.monotonic() - started
        if self._under_way.pop(id(batch), None) is None:
            return
        self._usual.add(took)
        try:
            self._observe(sum(work.rows for work in batch), [started - work.since for work in batch], took)
        except Exception as error:  # noqa: BLE001 - reported; the requests are answered all the same
            report("metrics", error)
        _note_run(batch, started)
        deliver(list(zip(batch, results, strict=True)))

    def _run_joined(self, batch: list[Work]) -> list[Outcome]:
        """Joins the inputs, runs the model, and cuts the outputs along the same rows."""
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
    """np.concatenate along the rows, but that lets go of the interpreter's lock, and waits for it, at every array."""
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
    """Hands each outcome to its request's side, in as few calls as there are sides; never raises.

    Where a side fails, the failure is reported, and its requests get that as their outcome.
    """
    sides: dict[Deliver, list[tuple[Work, Outcome]]] = {}
    for work, outcome in outcomes:
        if work.answered or work.withdrawn:
            continue
        work.answered = True
        if (mine := sides.get(work.deliver)) is None:
            mine = sides[work.deliver] = []
        mine.append((work, outcome))
    for side, mine in sides.items():
        try:
            side(mine)
        except Exception as error:  # noqa: BLE001 - reported
            report("delivery", error)
            for work, _ in mine:
                try:
                    side([(work, InferenceFailed(FAILED))])
                except Exception as again:  # noqa: BLE001 - reported
                    report("delivery", again)


def _deliver_error(works: Iterable[Work], message: str, kind: type[ServingError]) -> None:
    deliver([(work, kind(message)) for work in works])


def _as_serving_error(error: BaseException) -> ServingError:
    if isinstance(error, ServingError):
        return error
    # Not the error's text: of a value that is out of range, ONNX Runtime says what it was.
    node = FAILED_NODE.search(str(error))
    log.error("a model failed on a request: %s%s", type(error).__name__, printable(node[0]) if node else "")
    return InferenceFailed("the model failed on this request; the server's log says why")
