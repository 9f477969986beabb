"""The queue, organized in the batches in which it will run."""

import time

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from medserve_server.engine.plan import Plan
from medserve_server.engine.work import Work


def make(rows: int, priority: int = 2, key: str = "y", deadline: float | None = None) -> Work:
    return Work({"x": np.zeros((rows, 1))}, rows, (key,), lambda _: None, deadline, priority)


adds = st.tuples(st.just("add"), st.integers(1, 6), st.integers(1, 3), st.sampled_from("yyyz"))
steps = st.one_of(
    adds,
    adds,
    st.tuples(st.sampled_from(["remove", "expire"]), st.integers(0, 50), st.just(0), st.just("")),
    st.tuples(st.just("take"), st.just(0), st.just(0), st.just("")),
)


class Checked:
    """A plan, checked against an ordered list of its requests."""

    def __init__(self, max_rows: int) -> None:
        self.max_rows = max_rows
        self.plan = Plan(max_rows, 0.0)
        self.waiting: list[Work] = []

    def add(self, work: Work) -> None:
        self.plan.add(work)
        self.waiting = sorted([*self.waiting, work], key=lambda each: each.priority)

    def take(self) -> bool:
        batch, waiting = self.plan.take(), self.waiting
        assert bool(batch) == bool(waiting)
        assert batch == waiting[: len(batch)]
        del waiting[: len(batch)]
        assert len({(work.priority, work.key) for work in batch}) <= 1
        rows = sum(work.rows for work in batch)
        assert len(batch) <= 1 or rows <= self.max_rows
        if waiting and (waiting[0].priority, waiting[0].key) == (batch[0].priority, batch[0].key):
            assert rows + waiting[0].rows > self.max_rows, "the next would not have had room"
        return bool(batch)

    def remove(self, index: int) -> None:
        work = self.waiting.pop(index % len(self.waiting))
        self.plan.remove(work)
        self.plan.remove(work)  # nothing is left

    def expire(self, index: int) -> None:
        work = self.waiting.pop(index % len(self.waiting))
        work.deadline = 1.0
        self.plan.earliest = min(self.plan.earliest, 1.0)  # as if added in this state
        assert self.plan.expire(2.0) == [work]


@settings(max_examples=300, deadline=None)
@given(actions=st.lists(steps, max_size=80), max_rows=st.integers(0, 6))
def test_requests_leave_in_order_in_compatible_batches(actions: list[tuple[str, int, int, str]], max_rows: int) -> None:
    checked = Checked(max_rows)
    plan = checked.plan
    for action, number, priority, key in actions:
        if action == "add":
            checked.add(make(number, priority, key, deadline=1e9))
        elif action == "take":
            checked.take()
        elif checked.waiting:
            getattr(checked, action)(number)
        assert plan.works == len(checked.waiting)
    planned = plan.batches
    taken = 0
    while checked.take():
        taken += 1
    assert taken <= planned < taken + 4, "places that are free make at most one batch too many a priority"
    if not any(action in {"remove", "expire"} for action, *_ in actions):
        assert taken == planned
    assert not checked.waiting
    assert plan.works == plan.batches == plan.surplus == 0


@given(count=st.integers(1, 200), keep=st.integers(1, 64))
def test_withdrawn_requests_free_space_in_batches(count: int, keep: int) -> None:
    """If one in `keep` requests remains, so does about one in `keep` batches."""
    plan = Plan(8, 0.0)
    works = [make(1) for _ in range(count)]
    for work in works:
        plan.add(work)
    for index, work in enumerate(works):
        if index % keep:
            plan.remove(work)
    left = len(works[::keep])
    assert plan.works == left
    assert -(-left // 8) <= plan.batches <= -(-left // 8) + 1


def test_withdrawing_takes_constant_time() -> None:
    """Counted in steps of the plan, not in time: ten times as many requests take at most ten times as many steps."""

    def steps(count: int) -> int:
        packed = 0

        class Counted(Plan):
            def _repack(self, priority: int) -> None:
                nonlocal packed
                packed += self.works
                super()._repack(priority)

        plan = Counted(64, 0.0)
        works = [make(1) for _ in range(count)]
        for work in works:
            plan.add(work)
        for work in works[::2] + works[1::2]:
            plan.remove(work)
        assert plan.works == 0
        return packed

    assert steps(1000) <= 20 * 1000


def test_a_batch_waits_for_at_most_half_of_the_time_to_its_deadlines() -> None:
    plan = Plan(4, 60.0)
    now = time.monotonic()
    first = make(1)
    plan.add(first)
    assert plan.due == first.since + 60.0
    hurried = make(1, deadline=now + 10)
    plan.add(hurried)
    assert now + 4.9 < plan.due <= now + 5.1
    plan.add(make(2))
    assert plan.due == 0.0, "it is full"
