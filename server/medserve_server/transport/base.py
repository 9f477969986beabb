"""What the life cycle of a server asks of its transport."""

from typing import Protocol


class Transport(Protocol):
    """Carries calls to the services."""

    async def start(self) -> int:
        """Begins to listen and returns the port.

        Raises:
            OSError: the address can't be had.
        """

    async def drain(self, grace: float) -> bool:
        """Takes no new calls, and waits for those that were taken.

        Returns:
            False when `grace` seconds passed with calls unanswered.
        """

    async def close(self) -> None:
        """Ends all calls at once."""
