"""The server on one processor, which runs models and reads pictures when a test lets it.

As a program: python held_server.py FILE FLAGS... While FILE exists, no run of a model ends and no encoded picture is
read.
"""

import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnxruntime as ort
from PIL import Image

from medserve_server.cli import main
from server_process import ServerProcess, running_server
from waiting import wait_until


@dataclass(frozen=True)
class HeldServer:
    """One that is running."""

    server: ServerProcess
    file: Path

    @contextmanager
    def hold(self) -> Iterator[None]:
        """Nothing that is asked for inside is answered before the end."""
        self.file.touch()
        try:
            yield
        finally:
            self.file.unlink()

    def wait_for_calls(self, number: int) -> None:
        """Waits until so many are under way."""
        wait_until(lambda: self.server.total("medserve_inflight_requests") == number, f"{number} calls")

    def wait_for_all(self, calls: Sequence[Any]) -> None:
        """Waits until each call has ended or is under way."""

        def ended_or_under_way() -> bool:
            ended = sum(bool(call.done()) for call in calls)
            return ended + self.server.total("medserve_inflight_requests") == len(calls)

        wait_until(ended_or_under_way, "every call to end or arrive")

    def refused(self, reason: str) -> float:
        """Calls so far."""
        return self.server.sample(f'medserve_refused_total{{reason="{reason}"}}')

    def cpu_seconds(self) -> float:
        """Processor time so far."""
        return self.server.sample("process_cpu_seconds_total")


@contextmanager
def held_server(file: Path, *flags: str) -> Iterator[HeldServer]:
    """Serves until the block ends; `file` is what holds it."""
    program = (__file__, str(file))
    with running_server("--max-run-seconds", "3600", *flags, program=program) as server:
        yield HeldServer(server, file)


def _held(function: Callable[..., Any], file: Path) -> Callable[..., Any]:
    def waiting(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - as the original
        while file.exists():
            time.sleep(0.01)
        return function(*args, **kwargs)

    return waiting


if __name__ == "__main__":
    holds = Path(sys.argv.pop(1))
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    ort.InferenceSession.run = _held(ort.InferenceSession.run, holds)
    Image.open = _held(Image.open, holds)
    main()
