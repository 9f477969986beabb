"""What the batcher delivers, measures and records about runs, and about those that fail."""

from collections.abc import Callable, Sequence

import numpy as np
import pytest

from clock import Clock
from medserve_server.engine.batcher import Batcher
from medserve_server.engine.session import Tensors
from medserve_server.engine.work import Arrays, Outcome, Work
from medserve_server.errors import DeadlineExceeded, InferenceFailed, Unavailable
from medserve_server.telemetry.call_record import CallRecord
from unit.server.engine.batching import Caller, Doubling, rows

Run = Callable[[Tensors, Sequence[str]], Arrays]


def copy(inputs: Tensors, outputs: Sequence[str]) -> Arrays:
    """A model whose outputs are its input."""
    return dict.fromkeys(outputs, np.asarray(inputs["x"]))


def caller_of(run: Run, sizes: tuple[int, ...] = (), max_rows: int = 8) -> Caller:
    return Caller(Batcher(run, max_rows=max_rows, max_pending=99, sizes=sizes, observe=lambda *_: None))


def failing(error: BaseException, above: int = 0) -> tuple[Run, list[int]]:
    """Returns a model that fails on batches of more rows than `above`, and the sizes of its batches."""
    batches: list[int] = []

    def run(inputs: Tensors, outputs: Sequence[str]) -> Arrays:
        batches.append(len(inputs["x"]))
        if batches[-1] > above:
            raise error
        return copy(inputs, outputs)

    return run, batches


def errors(caller: Caller) -> dict[object, tuple[type, str]]:
    found = {}
    for tag, (outcome,) in caller.outcomes.items():
        assert not isinstance(outcome, dict)
        found[tag] = type(outcome), outcome.message
    return found


def record() -> CallRecord:
    return CallRecord((), "", "", "")


@pytest.mark.parametrize("fails", [False, True])
def test_a_run_is_measured_and_recorded_for_each_of_its_requests(clock: Clock, fails: bool) -> None:
    observed: list[tuple[int, list[float], float]] = []

    def run(inputs: Tensors, outputs: Sequence[str]) -> Arrays:
        clock.sleep(0.5)
        if fails:
            raise Unavailable("now")
        return copy(inputs, outputs)

    batcher = Batcher(run, max_rows=8, max_pending=9, observe=lambda *measured: observed.append(measured))
    caller = Caller(batcher)
    records = [record(), record(), None]
    for count, each in enumerate(records, 1):
        batcher.submit(
            Work(rows(*range(count)), count, ("y",), caller.deliver, since=clock.now, record=each, tag=count)
        )
        clock.sleep(0.25)
    caller.finish()
    assert observed == ([] if fails else [(6, [0.75, 0.5, 0.25], 0.5)])
    ends = [(each.started, each.finished) for each in records if each]
    if fails:  # together, and then one by one
        assert ends == [(1000.75, 1001.75), (1000.75, 1002.25)]
        assert errors(caller) == dict.fromkeys((1, 2, 3), (Unavailable, "now"))
    else:
        assert ends == [(1000.75, 1001.25)] * 2


def test_the_outcomes_of_a_run_are_delivered_in_one_call_per_receiver() -> None:
    deliveries: list[list[object]] = []

    def receive(outcomes: list[tuple[Work, Outcome]]) -> None:
        deliveries.append([work.tag for work, _ in outcomes])

    def receive_too(outcomes: list[tuple[Work, Outcome]]) -> None:
        receive(outcomes)

    caller = caller_of(Doubling())
    works = [
        Work(rows(tag), 1, ("y",), deliver, tag=tag)
        for tag, deliver in enumerate((receive, receive_too, receive, receive))
    ]
    for work in works:
        caller.batcher.submit(work)
    assert not any(work.answered for work in works)
    caller.finish()
    assert deliveries == [[0, 2, 3], [1]]
    assert all(work.answered is True for work in works)


def test_a_request_that_is_withdrawn_during_its_run_is_not_answered() -> None:
    works: list[Work] = []

    def run(inputs: Tensors, outputs: Sequence[str]) -> Arrays:
        caller.batcher.withdraw(works[0])
        return copy(inputs, outputs)

    caller = caller_of(run)
    works += [caller.submit(tag, rows(tag)) for tag in range(3)]
    caller.finish()
    assert list(caller.outcomes) == [1, 2]
    assert not works[0].answered


@pytest.mark.parametrize("fails", [False, True])
def test_a_run_that_ends_after_the_batcher_was_suspended_is_not_answered_again(
    clock: Clock, caplog: pytest.LogCaptureFixture, fails: bool
) -> None:
    observed: list[object] = []

    def run(inputs: Tensors, outputs: Sequence[str]) -> Arrays:
        batcher.suspend(clock.now)
        clock.sleep(9)
        if fails:
            raise RuntimeError("after all")
        return copy(inputs, outputs)

    batcher = Batcher(run, max_rows=8, max_pending=9, observe=lambda *measured: observed.append(measured))
    caller = Caller(batcher)
    works = [caller.submit(tag, rows(tag)) for tag in range(2)]
    works[0].record = record()
    caller.finish()
    text = "the model run exceeded the server's time limit (--max-run-seconds)"
    assert errors(caller) == dict.fromkeys(range(2), (DeadlineExceeded, text))
    assert (observed, works[0].record.finished, caplog.records) == ([], 0.0, [])


@pytest.mark.parametrize(
    ("text", "logged"),
    [
        (
            "Non-zero status code while running Cast node. Name:'/cast' Status: 81.5",
            " while running Cast node. Name:'/cast'",
        ),
        ("Non-zero status code while running A\nB node. Name:''", ""),
        ("a patient is 81.5 years old", ""),
    ],
)
def test_the_failure_of_a_model_is_logged_without_values(
    caplog: pytest.LogCaptureFixture, text: str, logged: str
) -> None:
    run, batches = failing(RuntimeError(text))
    caller = caller_of(run)
    caller.submit(0, rows(81.5))
    caller.finish()
    assert errors(caller) == {0: (InferenceFailed, "the model failed on this request; see the server log")}
    assert batches == [1]
    assert [record.getMessage() for record in caplog.records] == [f"a model failed on a request: RuntimeError{logged}"]


def test_only_the_requests_that_fail_separately_are_failed() -> None:
    run, batches = failing(Unavailable("now"), above=2)
    caller = caller_of(run)
    for tag, values in enumerate([(1,), (1, 2, 3), (1, 2)]):
        caller.submit(tag, rows(*values))
    caller.finish()
    assert batches == [6, 1, 3, 2]
    failed = caller.outcomes.pop(1)
    assert [type(outcome) for outcome in failed] == [Unavailable]
    assert [outcome["y"].ravel().tolist() for (outcome,) in caller.outcomes.values() if isinstance(outcome, dict)] == [
        [1],
        [1, 2],
    ]


def test_requests_of_a_run_that_takes_too_long_are_not_run_again() -> None:
    run, batches = failing(DeadlineExceeded("a run takes too long"))
    caller = caller_of(run)
    for tag in range(3):
        caller.submit(tag, rows(tag))
    caller.finish()
    assert batches == [3]
    assert errors(caller) == dict.fromkeys(range(3), (DeadlineExceeded, "a run takes too long"))


def test_a_request_that_is_withdrawn_meanwhile_is_not_run_separately() -> None:
    works: list[Work] = []
    batches: list[int] = []

    def run(inputs: Tensors, _: Sequence[str]) -> Arrays:
        batches.append(len(inputs["x"]))
        if batches == [6, 1]:
            caller.batcher.withdraw(works[1])
        raise Unavailable("now")

    caller = caller_of(run)
    works += [caller.submit(tag, rows(*range(tag + 1))) for tag in range(3)]
    caller.finish()
    assert batches == [6, 1, 3]
    assert list(caller.outcomes) == [0, 2]


def test_text_is_joined_too() -> None:
    caller = caller_of(copy, sizes=(4,))
    for tag, words in enumerate([["a"], ["b", "c"]]):
        caller.submit(tag, {"x": np.array(words, object).reshape(-1, 1)})
    caller.finish()
    assert [outcome["y"].ravel().tolist() for (outcome,) in caller.outcomes.values() if isinstance(outcome, dict)] == [
        ["a"],
        ["b", "c"],
    ]


@pytest.mark.parametrize("output", [np.array(3.0), np.zeros((3, 2)), np.zeros((1, 8))])
def test_a_model_whose_output_has_other_rows_fails_the_request(
    output: np.ndarray[tuple[int, ...], np.dtype[np.float64]],
) -> None:
    caller = caller_of(lambda _, outputs: dict.fromkeys(outputs, output), sizes=(2, 4))
    caller.submit(0, rows(1, 2, 3))
    caller.finish()
    text = f"output y has shape {list(output.shape)} for 4 rows of input"
    assert errors(caller) == {0: (InferenceFailed, text)}


def test_a_model_without_batching_may_return_any_shape() -> None:
    caller = caller_of(lambda _, outputs: dict.fromkeys(outputs, np.array(3.0)), max_rows=0)
    for tag in range(2):
        caller.submit(tag, rows(1, 2, 3))
    caller.finish()
    assert [outcome["y"].item() for (outcome,) in caller.outcomes.values() if isinstance(outcome, dict)] == [3.0, 3.0]


def test_a_batch_is_padded_with_copies_of_its_last_row() -> None:
    joined: list[list[float]] = []

    def run(inputs: Tensors, outputs: Sequence[str]) -> Arrays:
        joined.append(np.asarray(inputs["x"], np.float64).ravel().tolist())
        return copy(inputs, outputs)

    for requests in ([(1, 2), (3,)], [(5, 6)], [(0, 1, 2, 3, 4)]):
        caller = caller_of(run, sizes=(2, 4))
        for values in requests:
            caller.submit(values, rows(*values))
        caller.finish()
    assert joined == [[1, 2, 3, 3], [5, 6], [0, 1, 2, 3, 4]], "if no size is large enough, it is not padded"
