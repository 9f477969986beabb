"""The server on one processor, whose model runs and image decoding block until a test releases them."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from servers.server_process import ServerProcess, running_server
from waiting import wait_until


@dataclass(frozen=True)
class HeldServer:
    """A running server."""

    server: ServerProcess
    file: Path

    @contextmanager
    def hold(self) -> Iterator[None]:
        """Blocks all requests until the block ends."""
        self.file.touch()
        try:
            yield
        finally:
            self.file.unlink()

    def wait_for_calls(self, number: int) -> None:
        """Waits until `number` calls are in flight."""
        wait_until(lambda: self.server.total("medserve_inflight_requests") == number, f"{number} calls")

    def wait_for_all(self, calls: Sequence[Any]) -> None:
        """Waits until each call has ended or is in flight."""

        def ended_or_in_flight() -> bool:
            ended = sum(bool(call.done()) for call in calls)
            return ended + self.server.total("medserve_inflight_requests") == len(calls)

        wait_until(ended_or_in_flight, "every call to end or arrive")

    def refused(self, reason: str) -> float:
        """Returns the number of calls refused for this reason since the start."""
        return self.server.sample(f'medserve_refused_total{{reason="{reason}"}}')

    def cpu_seconds(self) -> float:
        """Returns the CPU seconds used since the start."""
        return self.server.sample("process_cpu_seconds_total")


@contextmanager
def held_server(file: Path, *flags: str, log: Path | None = None, own_group: bool = False) -> Iterator[HeldServer]:
    """Serves until the block ends; requests are blocked while `file` exists."""
    more = ("--max-run-seconds", "3600")
    with running_server(*more, *flags, patch=("held", str(file)), log=log, own_group=own_group) as server:
        yield HeldServer(server, file)
