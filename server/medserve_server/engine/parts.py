"""Requests with more rows than a batch: split into parts, whose outcomes are put together again."""

import threading
from collections.abc import Callable

import numpy as np

from medserve_server.engine.batcher import deliver
from medserve_server.engine.work import Arrays, Outcome, Work
from medserve_server.errors import ServingError


def split(whole: Work, max_rows: int, withdraw: Callable[[Work], None]) -> None:
    """Sets `whole.parts`: work of at most `max_rows` rows each. Their outcomes become one, which `whole` gets.

    Args:
        whole: the request.
        max_rows: of a part.
        withdraw: called with `whole` when a part failed, since the others are not needed any more.
    """
    collected = _Collected(whole, withdraw)
    whole.parts = [
        Work(
            {name: array[start : start + max_rows] for name, array in whole.inputs.items()},
            min(max_rows, whole.rows - start),
            whole.outputs,
            collected.add,
            whole.deadline,
            whole.priority,
            receipt=start,
            part_of=whole,
            record=whole.record,
        )
        for start in range(0, whole.rows, max_rows)
    ]


class _Collected:
    """The outcomes of parts so far."""

    def __init__(self, whole: Work, withdraw: Callable[[Work], None]) -> None:
        self._whole = whole
        self._withdraw = withdraw
        self._lock = threading.Lock()
        self._results: dict[int, Arrays] = {}

    def add(self, outcomes: list[tuple[Work, Outcome]]) -> None:
        """Takes outcomes of parts, from any thread that runs the model."""
        whole = self._whole
        with self._lock:
            for part, outcome in outcomes:
                if isinstance(outcome, ServingError):
                    deliver([(whole, outcome)])
                    break
                assert isinstance(part.receipt, int)  # noqa: S101 - set above
                self._results[part.receipt] = outcome
            else:
                if len(self._results) < len(whole.parts):
                    return
                results = [self._results[start] for start in sorted(self._results)]
                joined = {name: np.concatenate([result[name] for result in results]) for name in whole.outputs}
                deliver([(whole, joined)])
                return
        self._withdraw(whole)
