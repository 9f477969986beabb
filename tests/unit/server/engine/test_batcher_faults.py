"""The batcher when the model or a part of the batcher fails, and when it is suspended or closed."""

import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest

from medserve_server.engine.parts import split
from medserve_server.engine.work import DEFAULT_PRIORITY, Work
from medserve_server.errors import InferenceFailed, Unavailable
from unit.server.engine.batching import Caller, Doubling, make, rows


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


def messages(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records]


ERRORS = [ValueError, MemoryError, SystemExit]


@pytest.mark.parametrize("error", ERRORS)
@pytest.mark.parametrize("part", ["observe", "take", "_run_joined", "_answer", "_next_batch_late"])
def test_after_any_failure_every_request_has_one_outcome_and_the_next_is_answered(
    part: str, error: type[BaseException], caplog: pytest.LogCaptureFixture
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
    caller.run()
    caller.wait()
    for value in range(3, 6):
        caller.submit(value, rows(value))
    caller.finish()
    for value in range(1 if part == "_next_batch_late" else 0, 6):
        (outcome,) = caller.outcomes[value]
        if isinstance(outcome, dict):
            assert outcome["y"].tolist() == [[value * 2]]
        else:
            assert isinstance(outcome, InferenceFailed)
            assert outcome.message == "internal server error; see the server log"
    where = {"observe": "metrics", "take": "queue", "_answer": "batch"}.get(part)
    if (part, error) == ("observe", SystemExit):
        where = "batch"
    assert messages(caplog) == ([f"{where} failed; this is a bug"] if where else [])
    assert all(isinstance(caller.outcomes[value][0], dict) for value in range(3, 6))
    batcher.close()  # no thread counts as running any more


@pytest.mark.parametrize("times", [1, 1000])
def test_a_failing_receiver_of_outcomes_does_not_affect_others(times: int, caplog: pytest.LogCaptureFixture) -> None:
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
    for outcome in outcomes:
        assert isinstance(outcome, InferenceFailed)
        assert outcome.message == "internal server error; see the server log"
    assert messages(caplog) == ["delivery failed; this is a bug"] * min(times, 1 + 3)


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
