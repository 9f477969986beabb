"""A component that fails outside of model runs: it raises on some of its uses once the server is ready."""

import asyncio
import itertools
from collections.abc import Callable
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
from medserve_server.telemetry import logs
from medserve_server.telemetry.metrics import ModelMetrics

READY = asyncio.Event()
PRIVATE = "rows of a patient"  # must not appear in the log


def failing(right: Callable[..., Any], times: int, when: Callable[..., bool] = lambda *_: True) -> Callable[..., Any]:
    """Wraps a function so that some of its calls raise."""
    left = itertools.count(times, -1)

    def call(*arguments: Any, **options: Any) -> Any:  # noqa: ANN401 - as the original
        if READY.is_set() and when(*arguments) and next(left) > 0:
            raise ZeroDivisionError(PRIVATE)
        return right(*arguments, **options)

    return call


def patch(owner: Any, name: str, times: int, when: Callable[..., bool] = lambda *_: True) -> None:  # noqa: ANN401
    setattr(owner, name, failing(getattr(owner, name), times, when))


def break_delivery(times: int) -> None:
    """Delivery of outcomes to the event loop of the requests."""
    patch(model, "call_in_loop", times)


FAULTS: dict[str, Callable[[int], None]] = {
    "metrics": lambda times: patch(ModelMetrics, "executed", times),
    "delivery": break_delivery,
    "plan": lambda times: patch(Plan, "add", times),
    "batch": lambda times: patch(Batcher, "_answer", times),
    "withdrawn": lambda times: setattr(Work, "withdrawn", property(failing(Work.withdrawn.fget, times))),  # type: ignore[attr-defined]
    "observer": lambda times: setattr(lifecycle, "log_call", failing(logs.log_call, times)),
    "watchdog": lambda times: patch(Watchdog, "check", times),
    "suspend": lambda times: patch(Model, "suspend", times),
    "health": lambda times: patch(Health, "set_serving", times),
    "watch": lambda times: patch(Health, "_follow", times),
    "repository": lambda times: patch(ModelControl, "_poll", times),
    "poll": lambda times: patch(ModelControl, "poll", times),
    "retire": lambda times: patch(Model, "retire", times),
}


def apply(fault: str, times: str) -> None:
    FAULTS[fault](int(times))
    run = Server.run

    async def run_and_tell(self: Server, started: Callable[[Server], None]) -> None:
        def ready(server: Server) -> None:
            READY.set()
            started(server)

        await run(self, ready)

    Server.run = run_and_tell  # type: ignore[method-assign]
