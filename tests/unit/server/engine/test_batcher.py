"""The batcher joins compatible requests, in the order of their priorities, and returns to each its own rows."""

import time
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medserve_server.engine.batcher import Batcher
from medserve_server.engine.session import Tensors
from medserve_server.engine.work import Arrays
from medserve_server.errors import DeadlineExceeded, InferenceFailed
from unit.server.engine.batching import Caller, Doubling, make, rows
from waiting import PATIENCE, wait_until


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
    caller.run()
    wait_until(lambda: not len(caller.batcher))  # until the run has started
    for value in range(5):
        caller.submit(value, rows(value))
        assert caller.batcher.reserve() == 0, "the model is busy"
    model.open.set()
    caller.wait()
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
    caller.run()
    for value in (1, 2):
        caller.submit(value, rows(value))
    caller.wait()  # the delay has not ended: the batch is full
    assert model.batches == [3]


def test_a_delay_ends() -> None:
    observed: list[tuple[int, list[float], float]] = []
    batcher = Batcher(
        Doubling(), max_rows=3, max_pending=9, max_delay=0.1, observe=lambda *measured: observed.append(measured)
    )
    caller = Caller(batcher)
    caller.submit(0, rows(0))
    caller.finish()
    ((count, (waited,), _),) = observed
    assert count == 1
    assert waited > 0.099, "it has waited for the delay"


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
