"""Joins the rows of waiting requests into one run of the model, and gives each its own rows back."""

import logging
import math
import re
import threading
import time
from collections import deque
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from medserve_server.admission import UsualTime, check_wait
from medserve_server.errors import (
    DeadlineExceeded,
    InferenceFailed,
    Overloaded,
    ServingError,
    Unavailable,
    printable,
)
from medserve_server.session import OVERDUE, Tensors
from medserve_server.trail import Trail

log = logging.getLogger(__name__)

Arrays = dict[str, NDArray[np.generic]]
Outcome = Arrays | ServingError

EXPIRED = "the deadline passed while the request waited"
FAILED_NODE = re.compile(r" while running .{1,200}? node\. Name:'.{0,200}?'")
HANGS = "this model hangs; another server may answer"
DEFAULT_PRIORITY = 2  # 1 goes before, 3 and more behind


@dataclass(slots=True, eq=False)
class Work:
    """Rows of one request on their way through a model."""

    inputs: Tensors
    rows: int
    outputs: tuple[str, ...]
    """Names of the wanted outputs."""
    deliver: "Deliver"
    """Called in the model's thread with all outcomes of a run whose work has the same `deliver`."""
    deadline: float | None = None
    """On the clock of `time.monotonic`; None: no deadline."""
    priority: int = DEFAULT_PRIORITY
    receipt: object = None
    """Whatever `deliver` needs to find the request again."""
    cancelled: bool = False
    """Set it to withdraw the work; nothing is delivered then."""
    part_of: "Work | None" = None
    trail: Trail | None = None
    """Where its run is noted."""
    since: float = field(default_factory=time.monotonic)

    @property
    def withdrawn(self) -> bool:
        """Whether nobody waits for the outcome any more."""
        return self.cancelled or (self.part_of is not None and self.part_of.cancelled)

    @property
    def key(self) -> Hashable:
        """Work with equal keys may share a batch."""
        return self.outputs, tuple((name, array.dtype, array.shape[1:]) for name, array in self.inputs.items())


Deliver = Callable[[list[tuple[Work, Outcome]]], None]


class Batcher:
    """A queue that is emptied into one batch whenever the model is free.

    It has no thread of its own: whoever submits work sees to it that some thread calls `run_waiting`. A thread that
    finds the model busy leaves at once, since the one that runs it takes the new work next.

    Args:
        run: the model; takes joined inputs and the names of the outputs.
        max_rows: rows of one batch; 0 never joins requests.
        max_pending: requests in the queue.
        runs: how many threads may run the model at once; one alone does, unless a full batch waits.
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
        self._queue: deque[Work] = deque()
        self._arrived = threading.Condition()  # guards the queue
        self._rows = 0  # of all that waits
        self._runs = runs
        self._free = runs  # threads that may still begin to run the model
        self._usual = UsualTime()  # of a run
        self._under_way: dict[int, tuple[float, list[Work]]] = {}  # begin of the run and batch, by the batch's id
        self.closed = False
        self.suspended = False

    def __len__(self) -> int:
        """Requests that wait."""
        return len(self._queue)

    @property
    def busy(self) -> bool:
        """Whether a thread that runs the model will take what waits.

        A second one would only make two small batches out of one, and small batches cost more a row.
        """
        return self._free == 0 or (self._free < self._runs and self._rows < self._max_rows)

    def submit(self, *parts: Work) -> None:
        """Queues one request, in one or more parts, behind all of the same or a higher priority.

        Raises:
            ServingError: as `check`; no part is queued then.
        """
        with self._arrived:
            if self.closed:
                return  # no request is left that could wait for it
            rows = sum(part.rows for part in parts)
            position = self.check(rows, parts[0].priority, parts[0].deadline)
            for offset, part in enumerate(parts):
                self._queue.insert(position + offset, part)
            self._rows += rows
            if self._max_delay:
                self._arrived.notify()

    def check(self, rows: int, priority: int, deadline: float | None) -> int:
        """Says at which position of the queue work would wait.

        Work of less than the usual priority may fill half of the queue, so that it can't shut out the rest. Work that
        would most likely come too late is refused: it would only make all that comes behind it late as well.

        Raises:
            Overloaded: the queue is full, or too long for the deadline.
            DeadlineExceeded: it has passed already.
            Unavailable: the model hangs.
        """
        left = math.inf if deadline is None else deadline - time.monotonic()
        if left <= 0:
            raise DeadlineExceeded(EXPIRED)
        with self._arrived:
            if self.suspended:
                raise Unavailable(HANGS)
            position = len(self._queue)
            room = self._max_pending if priority <= DEFAULT_PRIORITY else self._max_pending // 2
            if position >= max(room, 1):
                raise Overloaded(f"{position} requests are waiting for this model already; try again later")
            ahead = self._rows
            if position and self._queue[-1].priority > priority:
                position = next(i for i, other in enumerate(self._queue) if other.priority > priority)
                ahead = sum(other.rows for other in islice(self._queue, position))
            if position:
                check_wait("what waits for this model", self._wait(position, ahead, rows), left)
            return position

    def _wait(self, position: int, ahead: int, rows: int) -> float:
        """Seconds that `rows` behind `ahead` others, of `position` parts of requests, are likely to take."""
        runs = position + 1
        if self._max_rows:  # several requests may share a run, and a request may take several
            runs = min(position + math.ceil(rows / self._max_rows), math.ceil((ahead + rows) / self._max_rows))
        return runs * self._usual.seconds / self._runs

    def suspend(self, latest: float) -> None:
        """Fails what has been running since before `latest`, what waits, and all that comes until `resume`."""
        with self._arrived:
            self.suspended = True
            waiting = list(self._queue)
            self._queue.clear()
            self._rows = 0
        late = [key for key, (began, _) in list(self._under_way.items()) if began <= latest]
        for _, batch in [self._under_way.pop(key, (0.0, [])) for key in late]:
            _deliver([(work, DeadlineExceeded(OVERDUE)) for work in batch])
        _deliver([(work, Unavailable(HANGS)) for work in waiting])

    def resume(self) -> None:
        """Takes work again."""
        self.suspended = False

    def close(self) -> None:
        """Drops all that waits, undelivered, takes nothing any more, and returns once no thread runs the model."""
        with self._arrived:
            self.closed = True
            self._queue.clear()
            self._rows = 0
            self._arrived.notify_all()
            self._arrived.wait_for(lambda: self._free == self._runs)

    def run_waiting(self, *, first: bool = False) -> None:
        """Runs the model on all that waits, unless as many threads as may are doing that; if `first`, unless any is."""
        with self._arrived:
            if self.busy or (first and self._free < self._runs):
                return
            self._free -= 1
        try:
            while batch := self._next_batch():
                self._answer(batch)
        except BaseException:
            with self._arrived:
                self._free += 1
                self._arrived.notify_all()
            raise

    def _next_batch(self) -> list[Work]:
        """Takes work from the head of the queue as long as it fits together; frees the thread where there is none."""
        batch: list[Work] = []
        expired: list[tuple[Work, Outcome]] = []
        rows = 0
        with self._arrived:
            if self._max_delay:
                self._wait_for_more()
            now = time.monotonic()
            while self._queue:
                head = self._queue[0]
                if head.withdrawn:
                    pass
                elif head.deadline is not None and now >= head.deadline:
                    expired.append((head, DeadlineExceeded(EXPIRED)))
                elif batch and (rows + head.rows > self._max_rows or head.key != batch[0].key):
                    break
                else:
                    batch.append(head)
                    rows += head.rows
                self._queue.popleft()
                self._rows -= head.rows
            if not batch:
                # Under the lock: work that is submitted after this finds a free thread.
                self._free += 1
                if self.closed:
                    self._arrived.notify_all()
        _deliver(expired)
        return batch

    def _wait_for_more(self) -> None:
        """Lets the oldest request wait until the batch is full or `max_delay` is over."""
        while self._queue and self._rows < self._max_rows:
            left = min(work.since for work in self._queue) + self._max_delay - time.monotonic()
            if left <= 0:
                return
            self._arrived.wait(left)

    def _answer(self, batch: list[Work]) -> None:
        started = time.monotonic()
        self._under_way[id(batch)] = started, batch
        try:
            results = self._run_joined(batch)
        except Exception as error:  # noqa: BLE001 - ONNX Runtime's errors have no base of their own
            if self._under_way.pop(id(batch), None) is None:
                return  # it hung, and `suspend` has answered
            _note_run(batch, started)
            if len(batch) == 1 or isinstance(error, DeadlineExceeded):
                failure = _as_serving_error(error)
                _deliver([(work, failure) for work in batch])
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
        self._observe(sum(work.rows for work in batch), [started - work.since for work in batch], took)
        _note_run(batch, started)
        _deliver(list(zip(batch, results, strict=True)))

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
    return np.frombuffer(b"".join([array.data for array in arrays]), first.dtype).reshape(-1, *first.shape[1:])


def _note_run(batch: list[Work], started: float) -> None:
    finished = time.monotonic()
    for work in batch:
        if work.trail is not None:
            work.trail.ran(started, finished)


def _deliver(outcomes: list[tuple[Work, Outcome]]) -> None:
    """Hands each outcome to its request's side, in as few calls as there are sides."""
    sides: dict[Deliver, list[tuple[Work, Outcome]]] = {}
    for work, outcome in outcomes:
        if not work.withdrawn:
            sides.setdefault(work.deliver, []).append((work, outcome))
    for deliver, mine in sides.items():
        deliver(mine)


def _as_serving_error(error: Exception) -> ServingError:
    if isinstance(error, ServingError):
        return error
    # Not the error's text: of a value that is out of range, ONNX Runtime says what it was.
    node = FAILED_NODE.search(str(error))
    log.error("a model failed on a request: %s%s", type(error).__name__, printable(node[0]) if node else "")
    return InferenceFailed("the model failed on this request; the server's log says why")
