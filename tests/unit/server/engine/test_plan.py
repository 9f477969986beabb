"""The queue, organized in the batches in which it will run."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from medserve_server.engine.plan import Place, Plan
from medserve_server.engine.work import Work


def make(rows: int, priority: int = 2, key: str = "y", deadline: float | None = None, since: float = 0.0) -> Work:
    return Work({"x": np.zeros((rows, 1))}, rows, (key,), lambda _: None, deadline, priority, since=since)


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
    assert plan.due == 0.0, "no batch is planned"
    plan.add(make(1, since=100.0))
    assert plan.due == 160.0
    plan.add(make(1, deadline=130.0, since=110.0))
    assert plan.due == 120.0
    plan.add(make(1, deadline=500.0, since=115.0))
    assert plan.due == 120.0
    plan.add(make(1, since=115.0))
    assert plan.due == 0.0, "it is full"
    plan.take()
    plan.add(make(1, priority=3, deadline=500.0, since=115.0))
    assert plan.due == 175.0
    plan.add(make(1, priority=4, since=115.0))
    assert plan.due == 0.0, "another batch is queued behind it"


def test_without_a_delay_no_batch_waits() -> None:
    plan = Plan(4, 0.0)
    for _ in range(2):
        plan.add(make(1, since=100.0))
        assert plan.due == 0.0


def test_batches_become_fewer_as_soon_as_a_whole_one_is_free() -> None:
    plan = Plan(4, 0.0)
    works = [make(1, priority) for priority in (1, 2) for _ in range(8)]
    for work in works:
        plan.add(work)
    for work in works[:3] + works[8:11]:
        plan.remove(work)
    assert plan.batches == 4
    plan.remove(works[4])
    plan.remove(works[12])
    assert (plan.batches, plan.surplus) == (2, 2)
    assert [plan.take() for _ in range(3)] == [[works[3], *works[5:8]], [works[11], *works[13:]], []]


def test_cleared_work_can_be_removed_or_queued_again() -> None:
    """A request may be withdrawn after the batcher was suspended."""
    plan = Plan(4, 0.0)
    works = [make(1), make(1, priority=1, deadline=10.0)]
    for work in works:
        plan.add(work)
    assert sorted(plan.clear(), key=works.index) == works
    for work in works:
        plan.remove(work)
    assert (plan.works, plan.batches, plan.surplus, plan.earliest) == (0, 0, 0, float("inf"))
    assert plan.take() == []
    plan.add(works[0])
    assert plan.take() == [works[0]]


def test_batches_are_joined_when_the_work_that_kept_them_apart_is_removed() -> None:
    """Whether it had another key or filled its batch alone."""
    for between in (make(1, key="z"), make(2)):
        plan = Plan(2, 0.0)
        ahead, first, last = make(1, key="w"), make(1), make(1)
        for work in (ahead, first, between, last):
            plan.add(work)
        plan.remove(between)
        assert plan.take() == [ahead]
        assert plan.take() == [first, last]
        assert (plan.batches, plan.works) == (0, 0)


def test_room_between_many_batches_is_filled_before_they_are_taken() -> None:
    plan = Plan(6, 0.0)
    kept, between = [make(1) for _ in range(6)], [make(1, key="z") for _ in range(5)]
    for work in [each for pair in zip(kept, between, strict=False) for each in pair] + kept[-1:]:
        plan.add(work)
    assert plan.batches == 11
    for work in between:
        plan.remove(work)
    assert plan.batches <= 2, "at most one too many"
    assert plan.take() == kept


def test_what_is_left_of_a_batch_has_room_for_as_many_rows_as_were_removed() -> None:
    plan = Plan(4, 0.0)
    removed = make(1)
    for work in (make(2), removed):
        plan.add(work)
    plan.remove(removed)
    assert plan.place([3], 2, None) == Place(2, 1)
    assert plan.place([2], 2, None) == Place(1, 1)
    plan.add(make(2))
    assert plan.batches == plan.surplus == 1
    plan.add(make(1))
    assert plan.batches == 2


def test_levels_without_gaps_are_taken_next_to_one_with_a_gap() -> None:
    plan = Plan(4, 0.0)
    removed = make(1, priority=2)
    works = [make(1, priority=1), make(1, priority=2), removed, make(1, priority=3)]
    for work in works:
        plan.add(work)
    plan.remove(removed)
    works.remove(removed)
    assert [plan.take() for _ in range(4)] == [[work] for work in works] + [[]]


def test_work_expires_at_its_deadline_and_the_next_deadline_is_known() -> None:
    plan = Plan(4, 0.0)
    first, second, third = make(1, deadline=10.0), make(1, deadline=20.0), make(1)
    for work in (second, third, first):
        plan.add(work)
    assert plan.earliest == 10.0
    assert plan.expire(9.9) == []
    assert plan.expire(10.0) == [first]
    assert plan.earliest == 20.0
    assert plan.expire(25.0) == [second]
    assert plan.earliest == float("inf")
    assert plan.clear() == [third]


queued = st.lists(st.tuples(st.integers(1, 6), st.integers(1, 3), st.sampled_from("yyz")), max_size=12)


@given(queue=queued, sizes=st.lists(st.integers(1, 6), min_size=1, max_size=3), priority=st.integers(1, 3))
def test_the_place_of_work_is_where_it_is_once_it_is_added(
    queue: list[tuple[int, int, str]], sizes: list[int], priority: int
) -> None:
    plan = Plan(6, 0.0)
    for rows, level, key in queue:
        plan.add(make(rows, level, key))
    parts = [make(rows, priority) for rows in ([6] * (len(sizes) - 1) + sizes[-1:])]
    place = plan.place([part.rows for part in parts], priority, parts[0])
    for part in parts:
        plan.add(part)
    assert place.surplus == plan.surplus
    runs = 0
    while plan.works:
        runs += 1
        if parts[-1] in plan.take():
            break
    assert place.runs == runs
