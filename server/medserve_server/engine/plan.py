"""The request queue of a model, kept as the batches that will run."""

import math
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from medserve_server.engine.work import Work


class Batch:
    """Work that is run together."""

    __slots__ = ("due", "rows", "works")

    def __init__(self, work: Work, due: float) -> None:
        self.works = [work]
        """Empty once the batch has been taken."""
        self.rows = work.rows
        self.due = due
        """Time at which it stops waiting for more work, on the clock of `time.monotonic`."""


@dataclass(slots=True)
class Place:
    """Position that new work would take in the plan."""

    runs: int
    """Number of runs up to and including the last one of the new work."""
    surplus: int
    """`Plan.surplus` after adding the work."""


class Plan:
    """Queued work in its order, joined into batches on arrival, so that estimates use the batches that will run.

    Work with a lower priority number goes first; within a priority, the order is first in, first out. A batch holds
    work of one priority and one key, and at most `max_rows` rows unless a single request has more. Not thread-safe.

    Args:
        max_rows: maximum number of rows in a batch; 0 disables batching.
        max_delay: maximum time in seconds that the last batch waits to be filled; for work with a deadline, at most
            half of the time until the deadline.
    """

    def __init__(self, max_rows: int, max_delay: float) -> None:
        self._max_rows = max_rows
        self._max_delay = max_delay
        self._reset()

    def _reset(self) -> None:
        self._levels: dict[int, deque[Batch]] = {}  # by priority; never empty
        self._freed: dict[int, int] = {}  # by priority: rows of batches that later work may fill
        self.works = 0
        """Number of queued requests; each part of a split request counts."""
        self.batches = 0
        self.earliest = math.inf
        """Lower bound on the deadlines of the queued work."""

    def __iter__(self) -> Iterator[Work]:
        """Iterates over the queued work, in no particular order."""
        return (work for level in self._levels.values() for batch in level for work in batch.works)

    @property
    def surplus(self) -> int:
        """Batches that gain nothing by waiting, since they are full or other batches are queued behind them."""
        if not self.batches:
            return 0
        last = self._levels[max(self._levels)][-1]
        return self.batches - (last.rows < self._max_rows)

    @property
    def due(self) -> float:
        """Time at which the next batch stops waiting for more work; 0 if it does not wait."""
        return self._levels[min(self._levels)][0].due if self.batches and not self.surplus else 0.0

    def add(self, work: Work) -> None:
        """Queues work behind all work of the same or a higher priority."""
        level = self._levels.get(work.priority)
        if level is None:
            level = self._levels[work.priority] = deque()
        self._append(level, work)
        self.works += 1
        if work.deadline is not None and work.deadline < self.earliest:
            self.earliest = work.deadline

    def take(self) -> list[Work]:
        """Removes and returns the next batch; an empty list if the queue is empty."""
        if not self.batches:
            return []
        priority = min(self._levels)
        if self._freed.get(priority):
            self._repack(priority)
        level = self._levels[priority]
        batch = level.popleft()
        if not level:
            self._drop(priority)
        works = batch.works
        batch.works = []
        self.batches -= 1
        self.works -= len(works)
        return works

    def remove(self, work: Work) -> None:
        """Removes work if it is still queued; later work fills the gap."""
        batch = work.batch
        if batch is None or not batch.works:
            return
        work.batch = None
        priority = work.priority
        batch.works.remove(work)
        batch.rows -= work.rows
        self.works -= 1
        if batch.works:
            self._free(priority, work.rows)
            return
        level = self._levels[priority]
        index = level.index(batch)
        del level[index]
        self.batches -= 1
        if not level:
            self._drop(priority)
        elif 0 < index < len(level) and self._joins(level[index - 1], level[index].works[0]):
            # It kept its neighbors apart; later work now fills the batch ahead of it.
            self._free(priority, self._max_rows - level[index - 1].rows)

    def expire(self, now: float) -> list[Work]:
        """Removes and returns the work whose deadline has passed."""
        late = [work for work in self if work.deadline is not None and work.deadline <= now]
        for work in late:
            self.remove(work)
        self.earliest = min((work.deadline for work in self if work.deadline is not None), default=math.inf)
        return late

    def clear(self) -> list[Work]:
        """Removes and returns all work."""
        levels = self._levels
        self._reset()
        works = [work for level in levels.values() for batch in level for work in batch.works]
        for work in works:
            work.batch = None
        return works

    def place(self, sizes: Sequence[int], priority: int, like: Work | None) -> Place:
        """Returns the position that work would take if it were added now.

        Args:
            sizes: number of rows of each part.
            priority: priority of the work.
            like: first part of the work; None if it has not been decoded yet and may share a batch with any other.
        """
        level = self._levels.get(priority)
        last = level[-1] if level else None
        joins = (
            last is not None
            and last.rows + sizes[0] <= self._max_rows
            and (like is None or like.key == last.works[0].key)
        )
        new = len(sizes) - joins
        ahead = sum(len(batches) for number, batches in self._levels.items() if number <= priority)
        if max(self._levels, default=priority) > priority:
            return Place(ahead + new, self.surplus + new)
        rows = sizes[-1] if last is None or new else last.rows + sizes[0]
        return Place(ahead + new, self.batches + new - (rows < self._max_rows))

    def _joins(self, batch: Batch, work: Work) -> bool:
        """Returns whether work of the same priority may join a batch."""
        return batch.rows + work.rows <= self._max_rows and batch.works[0].key == work.key

    def _append(self, level: deque[Batch], work: Work) -> None:
        due = self._due(work.since, work.deadline) if self._max_delay else 0.0
        if level:
            last = level[-1]
            if self._joins(last, work):
                last.works.append(work)
                last.rows += work.rows
                last.due = min(last.due, due)
                work.batch = last
                return
        work.batch = Batch(work, due)
        level.append(work.batch)
        self.batches += 1

    def _due(self, since: float, deadline: float | None) -> float:
        return since + (self._max_delay if deadline is None else min(self._max_delay, (deadline - since) / 2))

    def _free(self, priority: int, rows: int) -> None:
        """Notes that this many rows of a level's batches may be filled by later work."""
        freed = self._freed[priority] = self._freed.get(priority, 0) + rows
        if freed >= self._max_rows:  # fewer batches may suffice
            self._repack(priority)

    def _repack(self, priority: int) -> None:
        """Rebuilds the batches of a level."""
        level = self._levels[priority]
        works = [work for batch in level for work in batch.works]
        self.batches -= len(level)
        level.clear()
        for work in works:
            self._append(level, work)
        self._freed[priority] = 0

    def _drop(self, priority: int) -> None:
        del self._levels[priority]
        self._freed.pop(priority, None)
