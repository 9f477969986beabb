"""The interface between the server's life cycle and its transport."""

from typing import Protocol


class Transport(Protocol):
    """Accepts connections and passes calls to the services."""

    async def start(self) -> int:
        """Starts listening and returns the port.

        Raises:
            OSError: the address is unavailable.
        """

    async def drain(self, grace: float) -> bool:
        """Stops accepting new calls, and waits for accepted calls to finish.

        Returns:
            False if calls were still unanswered after `grace` seconds.
        """

    async def close(self) -> None:
        """Aborts all calls."""
