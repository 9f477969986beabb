"""The queue of the batcher: its length, deadlines, and requests that are withdrawn."""

from collections.abc import Sequence

import numpy as np
import pytest

from clock import Clock
from medserve_server.engine.batcher import Batcher
from medserve_server.engine.parts import split
from medserve_server.engine.session import Tensors
from medserve_server.engine.work import DEFAULT_PRIORITY, Arrays, Outcome, Work
from medserve_server.errors import DeadlineExceeded, Overloaded
from unit.server.engine.batching import Caller, Doubling, make, rows


def assert_expired(outcomes: list[Outcome]) -> None:
    (outcome,) = outcomes
    assert isinstance(outcome, DeadlineExceeded)
    assert outcome.message == "the deadline passed while the request was queued"


def test_a_request_whose_deadline_has_passed_is_rejected(clock: Clock) -> None:
    caller = Caller(make(Doubling()))
    text = "^the deadline passed while the request was queued$"
    with pytest.raises(DeadlineExceeded, match=text):
        caller.submit(0, rows(0), deadline=clock.now)
    with pytest.raises(DeadlineExceeded, match=text):
        caller.batcher.check(1, DEFAULT_PRIORITY, clock.now)
    assert len(caller.batcher) == 0


def test_a_request_that_expires_in_the_queue_is_not_run(clock: Clock) -> None:
    model = Doubling()
    caller = Caller(make(model))
    caller.submit("kept", rows(1))
    caller.submit("late", rows(2, 3), deadline=clock.now + 0.5)
    clock.sleep(0.5)
    caller.finish()
    assert_expired(caller.outcomes["late"])
    assert model.batches == [1]


def test_a_full_queue_rejects_requests() -> None:
    caller = Caller(make(Doubling(), max_pending=3))
    for value in range(3):
        caller.submit(value, rows(value))
    text = "^3 requests are already queued for this model; try again later$"
    with pytest.raises(Overloaded, match=text):
        caller.submit(9, rows(9))
    with pytest.raises(Overloaded, match=text):
        caller.batcher.check(1, 2, None)
    caller.finish()
    assert len(caller.outcomes) == 3


def test_a_queue_for_one_request_accepts_any_priority() -> None:
    caller = Caller(make(Doubling(), max_pending=1))
    caller.submit(0, rows(0), priority=3)
    for priority in (1, 3):
        with pytest.raises(Overloaded):
            caller.submit(1, rows(1), priority=priority)
    caller.finish()
    assert list(caller.outcomes) == [0]


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


def slow_batcher(clock: Clock, seconds: float, max_rows: int = 2) -> Batcher:
    """A batcher whose earlier runs took `seconds` each."""

    def run(inputs: Tensors, outputs: Sequence[str]) -> Arrays:
        clock.sleep(seconds)
        return dict.fromkeys(outputs, np.asarray(inputs["x"]))

    batcher = Batcher(run, max_rows=max_rows, max_pending=100, observe=lambda *_: None)
    caller = Caller(batcher)
    caller.submit(0, rows(0))
    caller.finish()
    return batcher


def test_a_request_that_would_miss_its_deadline_is_rejected_immediately(clock: Clock) -> None:
    caller = Caller(slow_batcher(clock, 0.1))
    for value in range(8):  # four runs, 0.4 s
        caller.submit(value, rows(value), deadline=clock.now + 60)
    with pytest.raises(Overloaded, match=r"^the queue of this model takes about [\d.]+ s, and the dead") as refused:
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


def test_a_request_that_joins_a_batch_which_is_about_to_start_is_accepted_with_any_deadline(clock: Clock) -> None:
    caller = Caller(slow_batcher(clock, 0.5, max_rows=4))
    caller.submit(1, rows(1))
    caller.submit(2, rows(2), deadline=clock.now + 0.9)
    caller.finish()
    assert isinstance(caller.outcomes[2][0], dict)


def test_a_batch_whose_thread_has_not_started_takes_one_run(clock: Clock) -> None:
    """A request that runs after it needs twice the time of two runs."""
    caller = Caller(slow_batcher(clock, 0.5))
    caller.submit(1, rows(1, 1))
    assert caller.batcher.reserve() == 1
    with pytest.raises(Overloaded, match="takes about 1 s, and the deadline leaves"):
        caller.batcher.check(1, DEFAULT_PRIORITY, clock.now + 1.875)
    caller.batcher.check(1, DEFAULT_PRIORITY, clock.now + 2)
    caller.batcher.run_reserved()
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


@pytest.mark.parametrize("max_rows", [0, 2])
def test_a_request_is_admitted_before_it_is_decoded_as_when_it_is_queued(clock: Clock, max_rows: int) -> None:
    """Twice the time until its last part has been run is needed: here after two batches, of two rows and of one."""
    batcher = slow_batcher(clock, 1.0, max_rows)
    caller = Caller(batcher)
    for value in range(3):
        caller.submit(value, rows(value))

    def admitted(count: int, left: float) -> bool:
        whole = Work(rows(*range(count)), count, ("y",), caller.deliver, clock.now + left)
        if max_rows and count > max_rows:
            split(whole, max_rows, lambda _: None)
        parts = whole.parts or (whole,)
        try:
            batcher.submit(*parts)
        except Overloaded:
            with pytest.raises(Overloaded, match="the deadline leaves"):
                batcher.check(count, DEFAULT_PRIORITY, clock.now + left)
            return False
        batcher.withdraw(*parts)
        batcher.check(count, DEFAULT_PRIORITY, clock.now + left)
        return True

    lefts = [number / 4 for number in range(1, 60)]
    needed = [next(left for left in lefts if admitted(count, left)) for count in range(1, 8)]
    assert needed == ([4.0, 6.0, 8.0, 8.0, 10.0, 10.0, 12.0] if max_rows else [8.0] * 7)


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


@pytest.mark.parametrize("check", [False, True])
def test_an_expired_request_is_answered_and_removed_when_the_next_one_arrives(clock: Clock, check: bool) -> None:
    caller = Caller(make(Doubling(), max_pending=2))
    caller.submit("kept", rows(1))
    caller.submit("late", rows(2), deadline=clock.now + 0.5)
    clock.sleep(0.5)
    if check:
        caller.batcher.check(1, DEFAULT_PRIORITY, None)
    else:
        caller.submit("next", rows(3))
    assert_expired(caller.outcomes["late"])
    caller.finish()
    assert set(caller.outcomes) == {"kept", "late"} | (set() if check else {"next"})
