"""When a call's time is up."""

import time

from medserve_server.interceptors import Context


def deadline_of(context: Context) -> float | None:
    """The call's deadline on the clock of `time.monotonic`; None where the client set none."""
    remaining = context.time_remaining()
    return None if remaining is None else time.monotonic() + remaining
