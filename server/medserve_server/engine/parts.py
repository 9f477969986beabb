"""Splits requests with more rows than a batch into parts, and joins the outcomes of the parts."""

import threading
from collections.abc import Callable

import numpy as np

from medserve_server.engine.batcher import deliver
from medserve_server.engine.work import Arrays, Outcome, Work
from medserve_server.errors import ServingError


def split(whole: Work, max_rows: int, withdraw: Callable[[Work], None]) -> None:
    """Sets `whole.parts` to work of at most `max_rows` rows each; their joined outcome is delivered for `whole`.

    Args:
        whole: the request.
        max_rows: maximum number of rows in a part.
        withdraw: called with `whole` when a part fails, since the remaining parts are no longer needed.
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
            tag=start,
            part_of=whole,
            record=whole.record,
        )
        for start in range(0, whole.rows, max_rows)
    ]


class _Collected:
    """Collects the outcomes of the parts."""

    def __init__(self, whole: Work, withdraw: Callable[[Work], None]) -> None:
        self._whole = whole
        self._withdraw = withdraw
        self._lock = threading.Lock()
        self._results: dict[int, Arrays] = {}

    def add(self, outcomes: list[tuple[Work, Outcome]]) -> None:
        """Adds outcomes of parts; may be called from any thread that runs the model."""
        whole = self._whole
        with self._lock:
            for part, outcome in outcomes:
                if isinstance(outcome, ServingError):
                    deliver([(whole, outcome)])
                    break
                assert isinstance(part.tag, int)  # noqa: S101 - set above
                self._results[part.tag] = outcome
            else:
                if len(self._results) < len(whole.parts):
                    return
                results = [self._results[start] for start in sorted(self._results)]
                joined = {name: np.concatenate([result[name] for result in results]) for name in whole.outputs}
                deliver([(whole, joined)])
                return
        self._withdraw(whole)
