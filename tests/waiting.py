"""Waits for events in other processes."""

import time
from collections.abc import Callable

PATIENCE = 300.0
"""Timeout in seconds of a wait: only a hang takes longer, even on a slow and busy machine."""


def wait_until(condition: Callable[[], bool], what: str = "", seconds: float = PATIENCE) -> None:
    """Polls a condition; fails after the timeout."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"timed out after {seconds:g} s waiting for: {what}"
        time.sleep(0.05)
