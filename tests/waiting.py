"""Waits for what another process does in its own time."""

import time
from collections.abc import Callable

PATIENCE = 300.0
"""Seconds that a test waits for an event: only a hang takes longer, even on a slow and busy machine."""


def wait_until(condition: Callable[[], bool], what: str = "", seconds: float = PATIENCE) -> None:
    """Looks again and again; fails when the time is over."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"waited {seconds:g} s in vain: {what}"
        time.sleep(0.05)
