"""A manually advanced clock that replaces the module `time`."""


class Clock:
    """A clock that advances only when `sleep` is called."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        """Returns the time in seconds."""
        return self.now

    def sleep(self, seconds: float) -> None:
        """Advances the clock; returns immediately."""
        self.now += seconds
