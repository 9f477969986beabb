"""Components that fail outside of model runs: once the server is ready, they raise on some of their uses."""

import asyncio
import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

from medserve_server.engine import model
from medserve_server.engine.batcher import Batcher
from medserve_server.engine.model import Model
from medserve_server.engine.plan import Plan
from medserve_server.engine.work import Work
from medserve_server.process import lifecycle
from medserve_server.process.lifecycle import Server
from medserve_server.process.watchdog import Watchdog
from medserve_server.registry.control import ModelControl
from medserve_server.services.health import Health
from medserve_server.telemetry.metrics import ModelMetrics

READY = asyncio.Event()
PRIVATE = "rows of a patient"  # must not appear in the log


FAULTS = {
    "metrics": 3,
    "delivery": 1,
    "plan": 3,
    "batch": 3,
    "withdrawn": 1,
    "observer": 3,
    "watchdog": 3,
    "health": 1_000_000,
    "watch": 1,
    "repository": 1,
    "poll": 1,
    "retire": 1,
}
"""How often each component fails."""


def failing(right: Callable[..., Any], file: Path) -> Callable[..., Any]:
    """Wraps a function so that its first calls raise while a file exists that has the name of its fault."""
    left = itertools.count(FAULTS[file.name], -1)

    def call(*arguments: Any, **options: Any) -> Any:  # noqa: ANN401 - as the original
        if READY.is_set() and file.exists() and next(left) > 0:
            raise ZeroDivisionError(PRIVATE)
        return right(*arguments, **options)

    return call


def apply(folder: str) -> None:
    """Makes every component able to fail; each does so once the folder contains a file with its name."""

    def patch(fault: str, owner: Any, name: str) -> None:  # noqa: ANN401
        setattr(owner, name, failing(getattr(owner, name), Path(folder, fault)))

    patch("metrics", ModelMetrics, "executed")
    patch("delivery", model, "call_in_loop")
    patch("plan", Plan, "add")
    patch("batch", Batcher, "_answer")
    patch("observer", lifecycle, "log_call")
    patch("watchdog", Watchdog, "check")
    patch("health", Health, "set_serving")
    patch("watch", Health, "_follow")
    patch("repository", ModelControl, "_poll")
    patch("poll", ModelControl, "poll")
    patch("retire", Model, "retire")
    Work.withdrawn = property(failing(Work.withdrawn.fget, Path(folder, "withdrawn")))  # type: ignore[attr-defined,assignment]
    run = Server.run

    async def run_and_tell(self: Server, started: Callable[[Server], None]) -> None:
        def ready(server: Server) -> None:
            READY.set()
            started(server)

        await run(self, ready)

    Server.run = run_and_tell  # type: ignore[method-assign]
