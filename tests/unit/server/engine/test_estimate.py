"""Admitted requests meet their deadlines: the estimate and the scheduler follow the same rules.

The real batcher and decoders run on a manually advanced clock, with runs of one second each.
"""

import heapq
import itertools
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from queue import SimpleQueue
from types import SimpleNamespace
from unittest import mock

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medserve_server.engine.batcher import Batcher
from medserve_server.engine.parts import split
from medserve_server.engine.session import Tensors
from medserve_server.engine.work import DEFAULT_PRIORITY, Arrays, Outcome, Work
from medserve_server.errors import DeadlineExceeded, Overloaded
from medserve_server.inputs.decoders import Decoders
from waiting import PATIENCE

SECOND = 1.0
STEP = 1 / 16  # clock resolution: exact in binary


@dataclass
class Clock:
    """Simulated time that advances from one end of work to the next, and the pending ends."""

    now: float = 100.0
    ends: list[tuple[float, int, threading.Event]] = field(default_factory=list)
    begun: "SimpleQueue[tuple[float, threading.Event] | None]" = field(default_factory=SimpleQueue)
    numbers: Iterator[int] = field(default_factory=itertools.count)

    def monotonic(self) -> float:
        return self.now

    def last(self, seconds: float = SECOND) -> None:
        """Blocks for this much simulated time; called in another thread."""
        gate = threading.Event()
        self.begun.put((self.now + seconds, gate))
        assert gate.wait(PATIENCE)

    def settle(self) -> None:
        """Waits until a resumed thread has started new work or is idle."""
        begun = self.begun.get(timeout=PATIENCE)
        if begun is not None:
            heapq.heappush(self.ends, (begun[0], next(self.numbers), begun[1]))

    def advance(self, until: float) -> None:
        while self.ends and self.ends[0][0] <= until:
            self.now, _, gate = heapq.heappop(self.ends)
            gate.set()
            self.settle()
        self.now = max(self.now, until) if until < float("inf") else self.now


@dataclass(frozen=True)
class Arrival:
    """A request that arrives `pause` after the previous one."""

    pause: float
    rows: int = 1
    priority: int = DEFAULT_PRIORITY
    key: str = "y"
    withdrawn: bool = False
    """Immediately after the next request has arrived."""


class Simulation:
    """A batcher whose runs take one second each, and the response times of its requests."""

    def __init__(self, clock: Clock, runs: int, max_rows: int) -> None:
        self.clock = clock
        self.max_rows = max_rows
        self.batcher = Batcher(self._run, max_rows=max_rows, max_pending=1000, runs=runs, observe=lambda *_: None)
        self.came: list[float] = []
        self.answered: dict[int, float] = {}
        self.failed: list[Outcome] = []
        self.arrive(Arrival(0))  # from now on, the duration of a run is known
        self.clock.advance(float("inf"))

    def _run(self, inputs: Tensors, outputs: Sequence[str]) -> Arrays:
        self.clock.last()
        return dict.fromkeys(outputs, np.asarray(inputs["x"]))

    def arrive(self, arrival: Arrival, left: float | None = None) -> Work:
        """Submits a request with a deadline in `left` seconds."""
        self.clock.advance(self.clock.now + arrival.pause)
        number = len(self.came)
        self.came.append(self.clock.now)
        work = Work(
            {"x": np.zeros((arrival.rows, 1))},
            arrival.rows,
            (arrival.key,),
            self._deliver,
            None if left is None else self.clock.now + left,
            arrival.priority,
            number,
            since=self.clock.now,
        )
        if self.max_rows and arrival.rows > self.max_rows:
            split(work, self.max_rows, self.withdraw)
        self.batcher.submit(*(work.parts or (work,)))
        for _ in range(self.batcher.reserve()):
            threading.Thread(target=self._run_reserved).start()
            self.clock.settle()
        return work

    def withdraw(self, work: Work) -> None:
        self.batcher.withdraw(*(work.parts or (work,)))
        work.cancelled = True

    def _run_reserved(self) -> None:
        self.batcher.run_reserved()
        self.clock.begun.put(None)

    def _deliver(self, outcomes: list[tuple[Work, Outcome]]) -> None:
        for work, outcome in outcomes:
            assert isinstance(work.tag, int)
            self.answered[work.tag] = self.clock.now
            if not isinstance(outcome, dict):
                self.failed.append(outcome)


@contextmanager
def simulation(runs: int, max_rows: int) -> Iterator[Simulation]:
    clock = Clock()
    with mock.patch("medserve_server.engine.batcher.time", SimpleNamespace(monotonic=clock.monotonic)):
        yield Simulation(clock, runs, max_rows)
        clock.advance(float("inf"))


pauses = st.integers(0, 40).map(lambda steps: steps * STEP)
plain = st.builds(Arrival, pauses, st.integers(1, 9))
mixed = st.builds(Arrival, pauses, st.integers(1, 9), st.integers(1, 4), st.sampled_from("yz"))
leaving = st.builds(Arrival, pauses, st.integers(1, 9), st.integers(1, 4), st.sampled_from("yz"), st.booleans())


@dataclass(frozen=True)
class Fate:
    """Outcome of a request."""

    seconds: float | None
    """Seconds until the response; None if it was rejected."""
    idle: bool
    """Whether the model was idle when the request arrived."""


def replay(runs: int, max_rows: int, arrivals: list[Arrival], left: float | None) -> Fate:
    """Returns the outcome of the last request, with a deadline in `left` seconds."""
    with simulation(runs, max_rows) as played:
        *before, last = arrivals
        works = [played.arrive(arrival) for arrival in before]
        for work, arrival in zip(works, before, strict=True):
            if arrival.withdrawn:
                played.withdraw(work)
        played.clock.advance(played.clock.now + last.pause)
        idle = not played.clock.ends
        try:
            played.arrive(replace(last, pause=0), left)
        except Overloaded:
            return Fate(None, idle)
        number = len(played.came) - 1
    assert not played.failed
    return Fate(played.answered[number] - played.came[number], idle)


@settings(max_examples=150, deadline=None)
@given(
    arrivals=st.lists(st.one_of(plain, mixed), min_size=1, max_size=25),
    runs=st.integers(1, 8),
    max_rows=st.integers(0, 4),
)
def test_the_estimate_equals_the_actual_time(arrivals: list[Arrival], runs: int, max_rows: int) -> None:
    """A request is admitted if its deadline leaves twice the estimated time, and rejected if it leaves less.

    Only a request that finds the model idle, or that starts immediately next to other runs, is never rejected.
    """
    alone = replay(runs, max_rows, arrivals, None)
    assert alone.seconds is not None
    assert replay(runs, max_rows, arrivals, 2 * alone.seconds) == alone
    refused = replay(runs, max_rows, arrivals, 2 * alone.seconds - STEP)
    assert refused.seconds is None or alone.idle or alone.seconds == SECOND


@settings(max_examples=100, deadline=None)
@given(
    arrivals=st.lists(leaving, min_size=1, max_size=40),
    lefts=st.lists(st.integers(1, 200).map(lambda steps: steps * STEP), min_size=40, max_size=40),
    runs=st.integers(1, 8),
    max_rows=st.integers(0, 4),
)
def test_an_admitted_request_meets_its_deadline(
    arrivals: list[Arrival], lefts: list[float], runs: int, max_rows: int
) -> None:
    """Regardless of later and withdrawn requests, unless these precede it."""
    deadlines: dict[int, tuple[float, int]] = {}
    with simulation(runs, max_rows) as played:
        before: Work | None = None
        for arrival, left in zip(arrivals, lefts, strict=False):
            for number, (_, priority) in list(deadlines.items()):
                if priority > arrival.priority and number not in played.answered:
                    del deadlines[number]
            played.clock.advance(played.clock.now + arrival.pause)
            idle = not played.clock.ends
            try:
                work = played.arrive(replace(arrival, pause=0), left)
            except (Overloaded, DeadlineExceeded):
                played.came.pop()
                continue
            if before is not None:
                played.withdraw(before)
                deadlines.pop(int(str(before.tag)), None)
            before = work if arrival.withdrawn else None
            if not (arrival.withdrawn or idle):
                number = len(played.came) - 1
                deadlines[number] = played.came[number] + max(left, SECOND), arrival.priority
    for number, (deadline, _) in deadlines.items():
        assert played.answered[number] <= deadline
    assert len(played.batcher) == 0


@settings(max_examples=60, deadline=None)
@given(begins=st.lists(pauses, min_size=0, max_size=12), threads=st.integers(1, 4))
def test_the_decoders_estimate_equals_the_actual_time(begins: list[float], threads: int) -> None:
    def replay(left: float | None) -> float | None:
        """Returns how long the last image takes; None if it is rejected."""
        clock = Clock()
        ended: dict[int, float] = {}

        def read(number: int) -> None:
            clock.last()
            ended[number] = clock.now

        def submit(number: int) -> None:
            future = decoders.submit(read, number)
            future.add_done_callback(lambda _: clock.begun.put(None) if not waiting() else None)
            if len(clock.ends) < threads:
                clock.settle()

        def waiting() -> bool:
            return decoders._work_queue.qsize() > 0  # noqa: SLF001 - of concurrent.futures

        with (
            mock.patch("medserve_server.inputs.decoders.time", SimpleNamespace(monotonic=clock.monotonic)),
            Decoders(threads) as decoders,
        ):
            submit(-1)
            clock.advance(float("inf"))
            for number, pause in enumerate(begins):
                clock.advance(clock.now + pause)
                submit(number)
            came = clock.now
            try:
                decoders.check(None if left is None else came + left)
            except Overloaded:
                clock.advance(float("inf"))
                return None
            submit(len(begins))
            clock.advance(float("inf"))
        return ended[len(begins)] - came

    took = replay(None)
    assert took is not None
    assert replay(2 * took) == took
    assert replay(2 * took - STEP) is None or took == SECOND


def test_an_idle_model_accepts_requests_with_any_deadline() -> None:
    with simulation(1, 4) as played:
        played.arrive(Arrival(0), STEP)


def test_a_single_request_waits_for_a_running_batch_despite_idle_threads() -> None:
    """A second run starts only for a full batch: this one starts in 7/8 s and takes one second."""
    with simulation(8, 64) as played:
        played.arrive(Arrival(0))
        with pytest.raises(Overloaded, match=r"takes about 1\.9 s, and the deadline leaves 2 s"):
            played.arrive(Arrival(SECOND / 8), 2.0)
        played.arrive(Arrival(0), 4.0)
    assert played.answered[3] - played.came[3] == 1.875
