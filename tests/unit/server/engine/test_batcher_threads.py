"""Several threads run one model: how many start, and suspending and closing the batcher meanwhile."""

import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clock import Clock
from medserve_server.engine.batcher import Batcher
from medserve_server.engine.session import Tensors
from medserve_server.engine.work import Arrays, Outcome, Work
from medserve_server.errors import DeadlineExceeded, Overloaded, ServingError, Unavailable
from waiting import PATIENCE, wait_until

WHOLE = 2
"""Number of rows of a full batch."""

CLOSED = Unavailable, "this model is no longer served; try another server"
OVERDUE = DeadlineExceeded, "the model run exceeded the server's time limit (--max-run-seconds)"


class Held:
    """Doubles its rows; each run blocks until it is released."""

    def __init__(self) -> None:
        self.in_flight: list[list[float]] = []
        self.most = 0
        self._let = threading.Semaphore(0)
        self._lock = threading.Lock()

    def __call__(self, inputs: Tensors, outputs: Sequence[str]) -> Arrays:
        x = np.asarray(inputs["x"], np.float64)
        values: list[float] = x.ravel().tolist()
        with self._lock:
            self.in_flight.append(values)
            self.most = max(self.most, len(self.in_flight))
        assert self._let.acquire(timeout=PATIENCE)
        with self._lock:
            self.in_flight.remove(values)
        return dict.fromkeys(outputs, x * 2)

    def let_through(self, runs: int) -> None:
        self._let.release(runs)


class Threads:
    """A batcher and the threads that it requests, as in a model; records the outcomes."""

    def __init__(self, runs: int, max_delay: float = 0.0) -> None:
        self.model = Held()
        self.batcher = Batcher(
            self.model, max_rows=WHOLE, max_pending=1000, runs=runs, max_delay=max_delay, observe=lambda *_: None
        )
        self.outcomes: dict[object, list[Outcome]] = {}
        self.pool = ThreadPoolExecutor(runs + 1)
        self.runs: list[Future[None]] = []

    def submit(self, value: float, deadline: float | None = None) -> Work:
        work = Work({"x": np.array([[value]])}, 1, ("y",), self._deliver, deadline, tag=value)
        self.batcher.submit(work)
        return work

    def start(self) -> int:
        """Starts as many threads as the batcher requests."""
        count = self.batcher.reserve()
        self.runs += [self.pool.submit(self.batcher.run_reserved) for _ in range(count)]
        return count

    def start_full(self, *batches: float) -> None:
        """Makes a thread run each of several full batches, which contain one value twice."""
        for value in batches:
            for _ in range(WHOLE):
                self.submit(value)
            assert self.start() == 1
            wait_until(lambda value=value: [value] * WHOLE in self.model.in_flight, "the run")  # type: ignore[misc]

    def finish(self) -> None:
        self.model.let_through(1000)
        for run in self.runs:
            run.result(PATIENCE)
        self.pool.shutdown()

    def _deliver(self, outcomes: list[tuple[Work, Outcome]]) -> None:
        for work, outcome in outcomes:
            self.outcomes.setdefault(work.tag, []).append(outcome)

    def of(self, value: float) -> set[object]:
        """Returns the outcomes of the requests with a value: numbers, and types and messages of errors."""
        return {
            outcome["y"].item() if isinstance(outcome, dict) else (type(outcome), outcome.message)
            for outcome in self.outcomes[value]
        }


@pytest.fixture
def two() -> Iterator[Threads]:
    threads = Threads(2)
    yield threads
    threads.finish()


@pytest.mark.parametrize("runs", [1, 2, 5])
def test_each_full_batch_starts_a_thread_until_all_are_busy(runs: int) -> None:
    threads = Threads(runs)
    for value in range((runs + 2) * WHOLE):
        threads.submit(value)
    assert threads.start() == runs
    wait_until(lambda: len(threads.model.in_flight) == runs, "a run in each thread")
    assert threads.start() == 0, "no thread is free"
    threads.finish()
    assert threads.model.most == runs
    for value in range((runs + 2) * WHOLE):
        assert threads.of(value) == {value * 2}


def test_an_incomplete_batch_waits_while_a_thread_runs(two: Threads) -> None:
    """A second thread would split one batch into two small ones."""
    two.start_full(1)
    two.submit(2)
    assert two.start() == 0
    two.submit(3)
    assert two.start() == 1, "nothing can join it any more"
    wait_until(lambda: [2, 3] in two.model.in_flight, "the full batch, during the other run")


def test_a_thread_takes_the_next_batch_after_its_run(two: Threads) -> None:
    two.start_full(1)
    two.submit(2)
    two.model.let_through(1)
    wait_until(lambda: two.model.in_flight == [[2]], "the next run of the same thread")
    assert two.start() == 0


@settings(max_examples=25, deadline=None)
@given(runs=st.integers(1, 4), values=st.lists(st.integers(0, 9), max_size=30), free=st.integers(1, 30))
def test_every_request_is_answered_once_within_the_thread_limit(runs: int, values: list[int], free: int) -> None:
    threads = Threads(runs)
    threads.model.let_through(free)
    for value in values:
        threads.submit(value)
        threads.start()
    threads.finish()
    assert threads.model.most <= runs
    assert sum(map(len, threads.outcomes.values())) == len(values)
    assert all(threads.of(value) == {value * 2} for value in values)
    assert len(threads.batcher) == 0


def test_the_remaining_time_of_a_run_is_part_of_the_estimate(clock: Clock, two: Threads) -> None:
    """A deadline is never too short only if no thread is running."""
    two.start_full(1)
    clock.sleep(0.1)  # the typical time, once this run has ended
    two.model.let_through(1)
    two.runs[0].result(PATIENCE)
    two.start_full(2)
    with pytest.raises(Overloaded, match="the deadline leaves"):
        two.submit(3, deadline=clock.now + 0.15)
    two.submit(4)
    two.submit(5, deadline=clock.now + 0.15)  # fills the batch and therefore starts the other thread
    assert two.start() == 1


def test_close_waits_for_every_running_thread(two: Threads) -> None:
    two.start_full(1, 2)

    def close() -> list[list[float]]:
        two.batcher.close()
        return list(two.model.in_flight)

    closing = two.pool.submit(close)
    wait_until(lambda: two.batcher.closed, "the batcher to be closed")
    two.model.let_through(1)
    wait(two.runs, PATIENCE, "FIRST_COMPLETED")
    wait([closing], 0.2)  # a chance to return too early
    two.model.let_through(1)
    assert closing.result(PATIENCE) == []
    assert two.of(1) | two.of(2) == {2.0, 4.0}, "what ran is answered"


def test_close_rejects_queued_and_new_requests(two: Threads) -> None:
    two.start_full(1, 2)
    two.submit(3)
    two.batcher.withdraw(two.submit(4))
    closing = two.pool.submit(two.batcher.close)
    wait_until(lambda: 3 in two.outcomes, "the answer to what waits")
    assert two.of(3) == {CLOSED}
    assert 4 not in two.outcomes
    with pytest.raises(Unavailable, match="no longer served"):
        two.submit(5)
    with pytest.raises(Unavailable, match="no longer served"):
        two.batcher.check(1, 2, None)
    two.model.let_through(2)
    closing.result(PATIENCE)
    two.batcher.close()  # has no requests left


def test_close_ends_the_wait_for_a_fuller_batch() -> None:
    threads = Threads(1, max_delay=2 * PATIENCE)
    threads.submit(1)
    assert threads.start() == 1
    closing = threads.pool.submit(threads.batcher.close)
    closing.result(PATIENCE)  # long before the delay ends
    assert threads.of(1) == {CLOSED}
    threads.finish()


def test_suspend_fails_only_overdue_runs(clock: Clock, two: Threads) -> None:
    two.start_full(1)
    long_ago = clock.now
    clock.sleep(1)
    two.start_full(2)
    two.submit(3)
    two.batcher.suspend(long_ago)
    assert two.of(1) == {OVERDUE}
    assert two.of(3) == {(Unavailable, "this model is suspended because a run hangs; try another server")}
    assert 2 not in two.outcomes
    with pytest.raises(Unavailable, match="hangs"):
        two.submit(4)
    two.model.let_through(2)
    for run in two.runs:
        run.result(PATIENCE)
    assert two.of(1) == {OVERDUE}, "the run that ends after all is not answered again"
    assert two.of(2) == {4.0}


@pytest.mark.parametrize("refused", [False, True])
def test_a_resumed_batcher_accepts_requests(two: Threads, refused: bool) -> None:
    two.batcher.suspend(0)
    if refused:
        with pytest.raises(ServingError):
            two.submit(1)
    two.batcher.resume()
    two.model.let_through(1)
    two.submit(2)
    assert two.start() == 1
    wait_until(lambda: 2 in two.outcomes, "the outcome")
    assert two.of(2) == {4.0}
