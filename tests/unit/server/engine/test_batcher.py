import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clock import Clock
from medserve_server.engine.batcher import Batcher
from medserve_server.engine.parts import split
from medserve_server.engine.session import Tensors
from medserve_server.engine.work import DEFAULT_PRIORITY, Arrays, Outcome, Work
from medserve_server.errors import DeadlineExceeded, InferenceFailed, Overloaded, Unavailable
from waiting import PATIENCE, wait_until


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

    def run(self) -> Future[None]:
        return self.pool.submit(self.batcher.run_waiting)

    def finish(self) -> None:
        self.run()
        self.pool.shutdown()

    def deliver(self, outcomes: list[tuple[Work, Outcome]]) -> None:
        for work, outcome in outcomes:
            self.outcomes.setdefault(work.tag, []).append(outcome)


@settings(max_examples=60, deadline=None)
@given(
    requests=st.lists(
        st.tuples(
            st.lists(st.integers(-1, 1000), min_size=1, max_size=5),  # -1: the model fails on it
            st.sampled_from(["kept", "kept", "kept", "cancelled", "expired"]),
            st.booleans(),  # let the queue be processed before the next one
        ),
        min_size=1,
        max_size=40,
    ),
    max_rows=st.integers(0, 12),
)
def test_each_request_receives_its_own_rows_regardless_of_the_others(
    requests: list[tuple[list[int], str, bool]], max_rows: int
) -> None:
    caller = Caller(make(Doubling(), max_rows))
    withdrawn = set()
    for number, (values, fate, run) in enumerate(requests):
        if fate == "expired":
            with pytest.raises(DeadlineExceeded):
                caller.submit(number, rows(*values), deadline=time.monotonic() - 1)
            withdrawn.add(number)
            continue
        work = caller.submit(number, rows(*values))
        if fate == "cancelled":
            caller.batcher.withdraw(work)
            withdrawn.add(number)
        if run:
            caller.run()
    caller.finish()
    assert set(caller.outcomes) == set(range(len(requests))) - withdrawn
    for tag, outcomes in caller.outcomes.items():
        (outcome,) = outcomes
        values, _, _ = requests[int(str(tag))]
        if -1 in values:
            assert isinstance(outcome, InferenceFailed)
        else:
            assert isinstance(outcome, dict)
            np.testing.assert_array_equal(outcome["y"].ravel(), np.array(values) * 2)
    assert len(caller.batcher) == 0


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr("medserve_server.engine.batcher.time", clock)
    return clock


def test_a_request_that_expires_in_the_queue_is_not_run(clock: Clock) -> None:
    model = Doubling()
    caller = Caller(make(model))
    caller.submit("kept", rows(1))
    caller.submit("late", rows(2, 3), deadline=clock.now + 0.05)
    clock.sleep(0.06)
    caller.finish()
    assert isinstance(caller.outcomes["late"][0], DeadlineExceeded)
    assert model.batches == [1]


def test_waiting_requests_are_joined_up_to_the_limit() -> None:
    model = Doubling()
    caller = Caller(make(model, max_rows=8))
    for value in range(21):
        caller.submit(value, rows(value))
    caller.finish()
    assert model.batches == [8, 8, 5]


def test_rows_without_elements_are_joined_too() -> None:
    model = Doubling()
    caller = Caller(make(model, max_rows=8))
    for count in (1, 2, 3):
        caller.submit(count, {"x": np.zeros((count, 0, 4))})
    caller.finish()
    assert model.batches == [6]
    for count in (1, 2, 3):
        (outcome,) = caller.outcomes[count]
        assert isinstance(outcome, dict)
        assert outcome["y"].shape == (count, 0, 4)


def test_requests_that_arrive_during_a_run_are_taken_by_its_thread() -> None:
    model = Doubling()
    model.open.clear()
    caller = Caller(make(model))
    caller.submit("first", rows(1))
    running = caller.run()
    wait_until(lambda: not len(caller.batcher))  # until the run has started
    for value in range(5):
        caller.submit(value, rows(value))
        caller.batcher.run_waiting()  # returns at once: the model is busy
    model.open.set()
    running.result()
    assert model.batches == [1, 5]
    assert len(caller.outcomes) == 6


def test_a_lower_priority_number_goes_first() -> None:
    model = Doubling()
    caller = Caller(make(model, max_rows=0))
    for tag, priority in (("a", 2), ("b", 3), ("c", 1), ("d", 2), ("e", 1)):
        caller.submit(tag, rows(1), priority=priority)
    caller.finish()
    assert list(caller.outcomes) == ["c", "e", "a", "d", "b"]


def test_incompatible_requests_are_not_joined() -> None:
    model = Doubling()
    caller = Caller(make(model))
    wide = {"x": np.ones((1, 3))}
    caller.submit(0, rows(1))
    caller.submit(1, wide)
    caller.submit(2, wide, ("z",))
    caller.submit(3, {"x": np.ones((1, 3), np.float32)}, ("z",))
    caller.finish()
    assert model.batches == [1, 1, 1, 1]
    assert [list(outcome) for (outcome,) in caller.outcomes.values() if isinstance(outcome, dict)] == [
        ["y"],
        ["y"],
        ["z"],
        ["z"],
    ]


def test_a_delay_fills_the_batch() -> None:
    model = Doubling()
    batcher = Batcher(model, max_rows=3, max_pending=9, max_delay=2 * PATIENCE, observe=lambda *_: None)
    caller = Caller(batcher)
    caller.submit(0, rows(0))
    running = caller.run()
    for value in (1, 2):
        caller.submit(value, rows(value))
    running.result(timeout=PATIENCE)  # long before the delay ends: the batch is full
    assert model.batches == [3]


def test_a_delay_ends() -> None:
    model = Doubling()
    batcher = Batcher(model, max_rows=3, max_pending=9, max_delay=0.01, observe=lambda *_: None)
    caller = Caller(batcher)
    caller.submit(0, rows(0))
    caller.finish()
    assert model.batches == [1]


def test_a_full_queue_rejects_requests() -> None:
    caller = Caller(make(Doubling(), max_pending=3))
    for value in range(3):
        caller.submit(value, rows(value))
    with pytest.raises(Overloaded, match="3 requests are already queued"):
        caller.submit(9, rows(9))
    caller.finish()
    assert len(caller.outcomes) == 3


def test_low_priority_requests_use_at_most_half_of_the_queue() -> None:
    caller = Caller(make(Doubling(), max_pending=4))
    for value in range(2):
        caller.submit(value, rows(value), priority=3)
    with pytest.raises(Overloaded, match="2 requests are already queued"):
        caller.submit(9, rows(9), priority=3)
    for value in range(2, 4):
        caller.submit(value, rows(value))
    with pytest.raises(Overloaded):
        caller.submit(9, rows(9))
    caller.finish()
    assert list(caller.outcomes) == [2, 3, 0, 1]


def slow_batcher(clock: Clock, seconds: float) -> Batcher:
    """A batcher whose earlier runs, of up to two rows, took `seconds` each."""

    def run(inputs: Tensors, outputs: Sequence[str]) -> Arrays:
        clock.sleep(seconds)
        return dict.fromkeys(outputs, np.asarray(inputs["x"]))

    batcher = Batcher(run, max_rows=2, max_pending=100, observe=lambda *_: None)
    caller = Caller(batcher)
    caller.submit(0, rows(0))
    caller.finish()
    return batcher


def test_a_request_that_would_miss_its_deadline_is_rejected_immediately(clock: Clock) -> None:
    caller = Caller(slow_batcher(clock, 0.1))
    for value in range(8):  # four runs, 0.4 s
        caller.submit(value, rows(value), deadline=clock.now + 60)
    with pytest.raises(Overloaded, match=r"takes about [\d.]+ s, and the deadline leaves 0\.\d+ s") as refused:
        caller.submit(9, rows(9), deadline=clock.now + 0.7)
    assert refused.value.limit == "deadline"
    caller.submit(9, rows(9), deadline=clock.now + 10)
    caller.submit(10, rows(10))  # no deadline
    caller.finish()
    assert len(caller.outcomes) == 10


def test_a_high_priority_request_does_not_wait_for_others(clock: Clock) -> None:
    caller = Caller(slow_batcher(clock, 0.1))
    for value in range(8):
        caller.submit(value, rows(value), priority=3)
    caller.submit(8, rows(8), deadline=clock.now + 0.7)
    with pytest.raises(Overloaded, match="the deadline leaves"):
        caller.submit(9, rows(9), deadline=clock.now + 0.7, priority=3)
    caller.finish()
    assert next(iter(caller.outcomes)) == 8


def test_an_empty_queue_accepts_requests_with_any_deadline(clock: Clock) -> None:
    caller = Caller(slow_batcher(clock, 0.5))
    caller.submit(1, rows(1), deadline=clock.now + 0.9)
    caller.finish()
    assert isinstance(caller.outcomes[1][0], dict)


def test_a_large_request_counts_as_one_run(clock: Clock) -> None:
    caller = Caller(slow_batcher(clock, 0.1))
    caller.submit(0, rows(*range(50)))
    caller.submit(1, rows(1), deadline=clock.now + 3)
    caller.finish()
    assert len(caller.outcomes) == 2


def test_parts_of_a_request_do_not_cause_rejection_of_each_other(clock: Clock) -> None:
    """Either none is queued, or all of them, one after the other."""
    batcher = slow_batcher(clock, 0.1)
    caller = Caller(batcher)

    def parts(seconds: float) -> list[Work]:
        deadline = clock.now + seconds
        return [Work(rows(2 * i, 2 * i + 1), 2, ("y",), caller.deliver, deadline, tag=i) for i in range(6)]

    batcher.submit(*parts(0.7))  # six runs, 0.6 s: only the request's own parts precede it
    with pytest.raises(Overloaded, match="the deadline leaves"):
        batcher.submit(*parts(0.7))
    assert len(batcher) == 6
    caller.finish()
    assert list(caller.outcomes) == list(range(6))


def test_a_model_that_loses_rows_fails_the_request() -> None:
    def shortened(inputs: Tensors, outputs: Sequence[str]) -> Arrays:
        return {name: np.asarray(inputs["x"])[:-1] for name in outputs}

    caller = Caller(Batcher(shortened, max_rows=8, max_pending=8, observe=lambda *_: None))
    caller.submit(0, rows(1, 2, 3))
    caller.finish()
    ((outcome,),) = caller.outcomes.values()
    assert isinstance(outcome, InferenceFailed)
    assert outcome.message == "output y has shape [2, 1] for 3 rows of input"


def test_a_batch_is_padded_to_a_warm_size_and_the_result_truncated() -> None:
    model = Doubling()
    caller = Caller(Batcher(model, max_rows=8, max_pending=9, sizes=(1, 2, 4, 8), observe=lambda *_: None))
    for value in range(5):
        caller.submit(value, rows(value))
    caller.finish()
    assert model.batches == [8]
    for value in range(5):
        (outcome,) = caller.outcomes[value]
        assert isinstance(outcome, dict)
        assert outcome["y"].tolist() == [[value * 2]]


def test_a_withdrawn_request_frees_its_place_immediately() -> None:
    caller = Caller(make(Doubling(), max_pending=3))
    works = [caller.submit(value, rows(value)) for value in range(3)]
    with pytest.raises(Overloaded, match="3 requests are already queued"):
        caller.submit(3, rows(3))
    caller.batcher.withdraw(works[1])
    assert len(caller.batcher) == 2
    caller.submit(3, rows(3))
    caller.finish()
    assert list(caller.outcomes) == [0, 2, 3]


def test_a_withdrawn_request_is_excluded_from_the_estimate(clock: Clock) -> None:
    caller = Caller(slow_batcher(clock, 0.1))
    works = [caller.submit(value, rows(value, value)) for value in range(20)]
    with pytest.raises(Overloaded, match="the deadline leaves"):
        caller.submit(20, rows(20), deadline=clock.now + 2)
    for work in works:
        caller.batcher.withdraw(work)
    caller.submit(20, rows(20), deadline=clock.now + 2)
    caller.finish()
    assert list(caller.outcomes) == [20]


def test_an_expired_request_is_answered_and_removed_when_the_next_one_arrives(clock: Clock) -> None:
    caller = Caller(make(Doubling(), max_pending=2))
    caller.submit("kept", rows(1))
    caller.submit("late", rows(2), deadline=clock.now + 0.05)
    clock.sleep(0.06)
    caller.submit("next", rows(3))
    assert isinstance(caller.outcomes["late"][0], DeadlineExceeded)
    caller.finish()
    assert set(caller.outcomes) == {"kept", "late", "next"}


def test_if_a_part_fails_the_others_leave_the_queue() -> None:
    model = Doubling()
    caller = Caller(make(model, max_rows=2))
    whole = Work(rows(-1, *range(20)), 21, ("y",), caller.deliver, tag="whole")
    split(whole, 2, lambda work: caller.batcher.withdraw(*work.parts))
    caller.batcher.submit(*whole.parts)
    caller.submit("other", rows(1))
    caller.finish()
    assert isinstance(caller.outcomes["whole"][0], InferenceFailed)
    assert len(caller.outcomes["whole"]) == 1
    assert isinstance(caller.outcomes["other"][0], dict)
    assert model.batches == [2, 1], "of the first part, and of the other request"


def test_closing_answers_queued_and_new_requests() -> None:
    caller = Caller(make(Doubling()))
    caller.submit(0, rows(0))
    caller.batcher.close()
    assert isinstance(caller.outcomes[0][0], Unavailable)
    with pytest.raises(Unavailable):
        caller.submit(1, rows(1))
    with pytest.raises(Unavailable):
        caller.batcher.check(1, DEFAULT_PRIORITY, None)


class Faulty:
    """Raises on the first calls and works normally afterwards."""

    def __init__(self, right: Callable[..., Any], error: type[BaseException], times: int) -> None:
        self.right = right
        self.error = error
        self.left = times

    def __call__(self, *arguments: Any) -> Any:  # noqa: ANN401 - as the original
        self.left -= 1
        if self.left >= 0:
            raise self.error("on purpose")
        return self.right(*arguments)


ERRORS = [ValueError, MemoryError, SystemExit]


@pytest.mark.parametrize("error", ERRORS)
@pytest.mark.parametrize("part", ["observe", "take", "_run_joined", "_answer", "_next_batch_late"])
def test_after_any_failure_every_request_has_one_outcome_and_the_next_is_answered(
    part: str, error: type[BaseException]
) -> None:
    model = Doubling()
    caller = Caller(make(model))
    batcher = caller.batcher
    if part == "observe":
        batcher._observe = Faulty(batcher._observe, error, 1)  # noqa: SLF001
    elif part == "take":
        batcher._plan.take = Faulty(batcher._plan.take, error, 1)  # type: ignore[method-assign]  # noqa: SLF001
    elif part == "_next_batch_late":
        batcher._plan.expire = Faulty(batcher._plan.expire, error, 1)  # type: ignore[assignment, method-assign]  # noqa: SLF001
        batcher._plan.earliest = 0.0  # noqa: SLF001
    else:
        setattr(batcher, part, Faulty(getattr(batcher, part), error, 1))
    for value in range(3):
        with suppress(error):
            caller.submit(value, rows(value))
    caller.run().result(timeout=10)
    for value in range(3, 6):
        caller.submit(value, rows(value))
    caller.finish()
    for value in range(1 if part == "_next_batch_late" else 0, 6):
        (outcome,) = caller.outcomes[value]
        if isinstance(outcome, dict):
            assert outcome["y"].tolist() == [[value * 2]]
        else:
            assert isinstance(outcome, InferenceFailed)
    assert all(isinstance(caller.outcomes[value][0], dict) for value in range(3, 6))
    batcher.close()  # no thread counts as running any more


@pytest.mark.parametrize("times", [1, 1000])
def test_a_failing_receiver_of_outcomes_does_not_affect_others(times: int) -> None:
    model = Doubling()
    bad, good = Caller(make(model)), Caller(make(model))
    good.batcher = bad.batcher
    bad.deliver = Faulty(bad.deliver, ValueError, times)  # type: ignore[assignment, method-assign]
    for value in range(3):
        bad.submit(value, rows(value))
        good.submit(value, rows(value))
    bad.finish()
    assert model.batches == [6]
    assert all(isinstance(outcome, dict) for (outcome,) in good.outcomes.values())
    assert len(good.outcomes) == 3
    outcomes = [outcome for (outcome,) in bad.outcomes.values()]
    assert len(outcomes) == (3 if times == 1 else 0)
    assert all(isinstance(outcome, InferenceFailed) for outcome in outcomes)


def test_suspending_answers_all_requests_even_if_a_receiver_fails() -> None:
    model = Doubling()
    bad, good = Caller(make(model)), Caller(make(model))
    good.batcher = bad.batcher
    bad.deliver = Faulty(bad.deliver, ValueError, 1000)  # type: ignore[assignment, method-assign]
    for value in range(3):
        bad.submit(value, rows(value))
        good.submit(value, rows(value))
    bad.batcher.suspend(time.monotonic())
    assert all(isinstance(outcome, Unavailable) for (outcome,) in good.outcomes.values())
    assert len(good.outcomes) == 3
    bad.batcher.resume()
    good.submit(3, rows(3))
    bad.finish()
    assert isinstance(good.outcomes[3][0], dict)
