"""Deliberate bugs in the batcher."""

import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

from medserve_server.engine import batcher
from medserve_server.engine.batcher import Batcher
from medserve_server.engine.work import Outcome, Work
from medserve_server.errors import InferenceFailed

right = Batcher._run_joined  # noqa: SLF001 - what is broken is private


def rotated(self: Batcher, batch: list[Work]) -> list[Outcome]:
    """Gives each request the rows of the next one."""
    results = right(self, batch)
    return results[1:] + results[:1]


def reversed_rows(self: Batcher, batch: list[Work]) -> list[Outcome]:
    """Returns the rows of a request in another order."""
    return [{name: array[::-1] for name, array in result.items()} for result in right(self, batch)]  # type: ignore[union-attr]


def kept(self: Batcher, batch: list[Work], last: dict[int, list[Outcome]] = {}) -> list[Outcome]:  # noqa: B006 - on purpose
    """Reuses a buffer before it is read: occasionally a batch gets the outcome of the previous one."""
    results = right(self, batch)
    return last.pop(len(batch), None) or last.setdefault(len(batch), results)


def blamed(self: Batcher, batch: list[Work]) -> list[Outcome]:
    """Makes an invalid request fail all requests of its batch."""
    try:
        return right(self, batch)
    except Exception:  # noqa: BLE001 - as the batcher
        return [InferenceFailed("the batch failed")] * len(batch)


def leaking(self: Batcher, batch: list[Work], kept: list[object] = []) -> list[Outcome]:  # noqa: B006 - on purpose
    """Leaks memory, a descriptor and a thread 20 times a second."""
    if not kept or time.monotonic() - LAST[0] > 0.05:
        LAST[0] = time.monotonic()
        threading.Thread(target=threading.Event().wait, daemon=True).start()
        kept += [b"x" * 2**20, Path(os.devnull).open()]  # noqa: SIM115 - on purpose
    return right(self, batch)


LAST = [0.0]
MUTATIONS: dict[str, Callable[..., list[Outcome]]] = {
    "rotated": rotated,
    "reversed": reversed_rows,
    "kept": kept,
    "blamed": blamed,
    "leaking": leaking,
}


def apply(mutation: str) -> None:
    batcher.Batcher._run_joined = MUTATIONS[mutation]  # type: ignore[method-assign]  # noqa: SLF001
