"""The server with a part that fails outside of any run of a model: python faulty_server.py FAULT TIMES FLAGS...

The part raises the next TIMES times that it is used, counted from when the server is ready.
"""

import asyncio
import itertools
import sys
import threading
from collections.abc import Callable
from typing import Any

import grpc
from grpc_health.v1.health import aio as health

from medserve_server import lifecycle, logs, model, native
from medserve_server.batcher import Batcher
from medserve_server.cli import main
from medserve_server.health import Health
from medserve_server.lifecycle import Server
from medserve_server.limits import CallLimits
from medserve_server.metrics import ModelMetrics
from medserve_server.model import Model
from medserve_server.model_control import ModelControl
from medserve_server.watchdog import Watchdog
from medserve_server.work import Work

READY = asyncio.Event()
PRIVATE = "rows of a patient"  # no log may show it


def failing(right: Callable[..., Any], times: int, when: Callable[..., bool] = lambda *_: True) -> Callable[..., Any]:
    """The same function, but that it raises some of the times."""
    left = itertools.count(times, -1)

    def call(*arguments: Any, **options: Any) -> Any:  # noqa: ANN401 - as the original
        if READY.is_set() and when(*arguments) and next(left) > 0:
            raise ZeroDivisionError(PRIVATE)
        return right(*arguments, **options)

    return call


def patch(owner: Any, name: str, times: int, when: Callable[..., bool] = lambda *_: True) -> None:  # noqa: ANN401
    setattr(owner, name, failing(getattr(owner, name), times, when))


def break_delivery(times: int) -> None:
    """What carries outcomes to the side of the requests: the event loop's, or native's own."""
    loop = asyncio.base_events.BaseEventLoop
    patch(loop, "call_soon_threadsafe", times, lambda _, function, *__: function is model._resolve)  # noqa: SLF001
    patch(native.NativeFront, "_answer", times)


def end_calls_while_they_enter(times: int) -> None:
    """Holds a call that its client's limit has counted until another thread has ended it."""
    left = itertools.count(times, -1)
    call_ended = threading.Event()
    enter, ended = CallLimits.enter, native.NativeFront._ended  # noqa: SLF001

    def enter_slowly(limits: CallLimits, client: str) -> None:
        enter(limits, client)
        if READY.is_set() and next(left) > 0:
            call_ended.wait()

    def end(front: native.NativeFront, call: Any, code: grpc.StatusCode) -> None:  # noqa: ANN401 - as the original
        ended(front, call, code)
        call_ended.set()

    CallLimits.enter = enter_slowly  # type: ignore[method-assign, assignment]
    native.NativeFront._ended = end  # type: ignore[method-assign, assignment]  # noqa: SLF001


def break_receiving(_: int) -> None:
    """Lets the native transport raise, once it is closed, where it gives the next calls."""
    bind = native.NativeFront.bind

    class Failing:
        def __init__(self, front: native.NativeFront) -> None:
            self.outer, self.inner = front, front._front  # noqa: SLF001

        def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - as the original
            return getattr(self.inner, name)

        def recv_batch_details(self, *arguments: int) -> Any:  # noqa: ANN401 - as the original
            events = self.inner.recv_batch_details(*arguments)
            if self.outer._closed:  # noqa: SLF001
                raise ZeroDivisionError(PRIVATE)
            return events

    def bind_failing(front: native.NativeFront) -> None:
        bind(front)
        front._front = Failing(front)  # type: ignore[assignment]  # noqa: SLF001

    native.NativeFront.bind = bind_failing  # type: ignore[method-assign, assignment]


FAULTS: dict[str, Callable[[int], None]] = {
    "metrics": lambda times: patch(ModelMetrics, "executed", times),
    "delivery": break_delivery,
    "key": lambda times: setattr(Work, "key", property(failing(Work.key.fget, times))),  # type: ignore[attr-defined]
    "batch": lambda times: patch(Batcher, "_answer", times),
    "withdrawn": lambda times: setattr(Work, "withdrawn", property(failing(Work.withdrawn.fget, times))),  # type: ignore[attr-defined]
    "observer": lambda times: setattr(lifecycle, "log_call", failing(logs.log_call, times)),
    "watchdog": lambda times: patch(Watchdog, "look", times),
    "suspend": lambda times: patch(Model, "suspend", times),
    "health": lambda times: patch(Health, "set_serving", times),
    "watch": lambda times: patch(health.HealthServicer, "Watch", times),
    "repository": lambda times: patch(ModelControl, "_poll", times),
    "poll": lambda times: patch(ModelControl, "poll", times),
    "enter": end_calls_while_they_enter,
    "receive": break_receiving,
    "retire": lambda times: patch(Model, "retire", times),
}

if __name__ == "__main__":
    fault, count = sys.argv.pop(1), int(sys.argv.pop(1))
    FAULTS[fault](count)
    run = Server.run

    async def run_and_tell(self: Server, started: Callable[[Server], None]) -> None:
        def ready(server: Server) -> None:
            READY.set()
            started(server)

        await run(self, ready)

    Server.run = run_and_tell  # type: ignore[method-assign]
    main()
