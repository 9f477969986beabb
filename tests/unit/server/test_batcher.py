import asyncio
import threading
import time
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medserve_server.batcher import Arrays, Batcher
from medserve_server.errors import DeadlineExceeded, InferenceFailed, Overloaded
from medserve_server.session import Tensors


class Doubling:
    """Doubles its rows; fails on a batch that holds a negative one. Notes the batches and can be held."""

    def __init__(self) -> None:
        self.batches: list[int] = []
        self.open = threading.Event()
        self.open.set()

    def __call__(self, inputs: Tensors, outputs: Sequence[str]) -> Arrays:
        self.open.wait(10)
        x = np.asarray(inputs["x"], np.float64)
        self.batches.append(len(x))
        if (x < 0).any():
            raise RuntimeError("negative")
        return dict.fromkeys(outputs, x * 2)


def make(model: Doubling, max_rows: int = 8, max_pending: int = 1000) -> Batcher:
    return Batcher(model, max_rows=max_rows, max_pending=max_pending, observe=lambda *_: None)


def rows(*values: float) -> Tensors:
    return {"x": np.array(values, np.float64).reshape(-1, 1)}


@settings(max_examples=60, deadline=None)
@given(
    requests=st.lists(
        st.tuples(
            st.lists(st.integers(-1, 1000), min_size=1, max_size=5),  # -1: the model fails on it
            st.sampled_from(["kept", "kept", "kept", "cancelled", "expired"]),
            st.booleans(),  # let the queue run before the next one
        ),
        min_size=1,
        max_size=40,
    ),
    max_rows=st.integers(0, 12),
)
async def test_each_request_gets_its_own_rows_whatever_happens_to_the_others(
    requests: list[tuple[list[int], str, bool]], max_rows: int
) -> None:
    batcher = make(Doubling(), max_rows)
    futures = []
    for values, fate, pause in requests:
        deadline = time.monotonic() - 1 if fate == "expired" else None
        future = batcher.submit(rows(*values), len(values), ("y",), deadline)
        if fate == "cancelled":
            future.cancel()
        futures.append(future)
        if pause:
            await asyncio.sleep(0)
    answers = await asyncio.gather(*futures, return_exceptions=True)
    await asyncio.sleep(0.01)  # what was cancelled leaves the queue when its turn comes
    batcher.close()
    for (values, fate, _), answer in zip(requests, answers, strict=True):
        if fate == "cancelled":
            assert isinstance(answer, asyncio.CancelledError)
        elif fate == "expired":
            assert isinstance(answer, DeadlineExceeded)
        elif -1 in values:
            assert isinstance(answer, InferenceFailed)
        else:
            assert isinstance(answer, dict)
            np.testing.assert_array_equal(answer["y"].ravel(), np.array(values) * 2)
    assert len(batcher) == 0


async def test_waiting_requests_are_joined_up_to_the_limit() -> None:
    model = Doubling()
    model.open.clear()
    batcher = make(model, max_rows=8)
    futures = [batcher.submit(rows(value), 1, ("y",), None) for value in range(21)]
    await asyncio.sleep(0.05)  # the first is in the model, alone or with all that were there
    model.open.set()
    await asyncio.gather(*futures)
    assert sum(model.batches) == 21
    assert max(model.batches) == 8
    assert len(model.batches) <= 4


async def test_requests_that_differ_are_not_joined() -> None:
    model = Doubling()
    model.open.clear()
    batcher = make(model)
    wide = {"x": np.ones((1, 3))}
    futures = [
        batcher.submit(rows(1), 1, ("y",), None),
        batcher.submit(wide, 1, ("y",), None),
        batcher.submit(wide, 1, ("z",), None),
        batcher.submit({"x": np.ones((1, 3), np.float32)}, 1, ("z",), None),
    ]
    model.open.set()
    answers = await asyncio.gather(*futures)
    assert model.batches == [1, 1, 1, 1]
    assert [list(answer) for answer in answers] == [["y"], ["y"], ["z"], ["z"]]


async def test_a_full_queue_refuses() -> None:
    model = Doubling()
    model.open.clear()
    batcher = make(model, max_pending=3)
    futures = [batcher.submit(rows(value), 1, ("y",), None) for value in range(3)]
    with pytest.raises(Overloaded, match="3 requests are waiting"):
        batcher.submit(rows(9), 1, ("y",), None)
    model.open.set()
    await asyncio.gather(*futures)


async def test_a_model_that_loses_rows_fails_the_request() -> None:
    def shortened(inputs: Tensors, outputs: Sequence[str]) -> Arrays:
        return {name: np.asarray(inputs["x"])[:-1] for name in outputs}

    batcher = Batcher(shortened, max_rows=8, max_pending=8, observe=lambda *_: None)
    with pytest.raises(InferenceFailed, match=r"output y has shape \[2, 1\] for 3 rows"):
        await batcher.submit(rows(1, 2, 3), 3, ("y",), None)
