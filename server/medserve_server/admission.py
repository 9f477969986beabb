"""Whether what waits would still be answered in time."""

from collections.abc import Sequence
from dataclasses import dataclass

from medserve_server.errors import Overloaded

_LATEST = 0.2

MARGIN = 2.0
"""How many times as long as a wait is likely to take a deadline has to leave."""


@dataclass(slots=True)
class UsualTime:
    """How long something takes: a mean in which the latest time weighs a fifth."""

    seconds: float = 0.0

    def add(self, took: float) -> None:
        """Notes that it took this long, in seconds."""
        self.seconds += (took - self.seconds) * (_LATEST if self.seconds else 1.0)


def start_seconds(busy: Sequence[float], position: int, usual: float) -> float:
    """Seconds until the run at a position of a queue begins, where each takes its usual time.

    Args:
        busy: for each thread that serves the queue, the seconds until it takes the next run; each at most `usual`.
        position: runs that are taken before it.
        usual: seconds that a run takes.
    """
    rounds, place = divmod(position, len(busy))
    return sorted(busy)[place] + rounds * usual


def check_wait(what: str, wait: float, left: float) -> None:
    """Refuses what would most likely come too late: it would only make all that comes behind it late as well.

    Args:
        what: has to be waited for.
        wait: seconds that this is likely to take.
        left: seconds that the deadline leaves.

    Raises:
        Overloaded: the wait may take more than half of what is left.
    """
    if left < MARGIN * wait:
        text = f"{what} takes about {wait:.2g} s, and the deadline leaves {left:.2g} s; try again later"
        raise Overloaded(text, limit="deadline")
