"""Admission control: refuses work that would miss its deadline."""

from collections.abc import Sequence
from dataclasses import dataclass

from medserve_server.errors import Overloaded

_SMOOTHING = 0.2
"""Weight of the latest measurement in the exponential moving average."""

MARGIN = 2.0
"""Safety factor: the time left until the deadline has to be at least this many times the estimated wait."""


@dataclass(slots=True)
class UsualTime:
    """Typical duration of an operation, in seconds: an exponential moving average of the measured durations."""

    seconds: float = 0.0

    def add(self, took: float) -> None:
        """Adds a measured duration, in seconds."""
        self.seconds += (took - self.seconds) * (_SMOOTHING if self.seconds else 1.0)


def start_seconds(busy: Sequence[float], position: int, usual: float) -> float:
    """Returns the estimated seconds until the run at a given queue position starts, if each run takes `usual` seconds.

    Args:
        busy: seconds until each of the threads that serve the queue is free; each at most `usual`.
        position: number of runs ahead of it in the queue.
        usual: typical duration of a run, in seconds.
    """
    rounds, place = divmod(position, len(busy))
    return sorted(busy)[place] + rounds * usual


def check_wait(what: str, wait: float, left: float) -> None:
    """Refuses a request that would most likely miss its deadline; to run it anyway would only delay those behind it.

    Args:
        what: subject of the error message: what the request waits for.
        wait: estimated wait, in seconds.
        left: seconds until the deadline.

    Raises:
        Overloaded: `wait` times `MARGIN` exceeds `left`.
    """
    if left < MARGIN * wait:
        text = f"{what} takes about {wait:.2g} s, and the deadline leaves {left:.2g} s; try again later"
        raise Overloaded(text, limit="deadline")
