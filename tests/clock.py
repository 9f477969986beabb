"""A clock that a test moves, in place of the module `time`."""


class Clock:
    """Stands still until somebody sleeps."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        """Seconds."""
        return self.now

    def sleep(self, seconds: float) -> None:
        """Moves the clock; returns at once."""
        self.now += seconds
