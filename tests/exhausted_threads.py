"""Simulates an operating system that cannot start further threads."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

MESSAGE = "can't start new thread"


@contextmanager
def no_new_threads(after: int = 0) -> Iterator[None]:
    """Lets `after` more threads start; starting any further one raises Python's error."""
    start = threading.Thread.start
    left = after

    def limited(thread: threading.Thread) -> None:
        nonlocal left
        if left == 0:
            raise RuntimeError(MESSAGE)
        left -= 1
        start(thread)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(threading.Thread, "start", limited)
        yield
