"""Starts every thread and task of the server, so that none of them can fail silently.

Whatever fails outside of a request's own errors is logged, counted in `medserve_internal_errors_total`, and, where it
has to go on, started again. No other module starts threads or tasks (tests/unit/server/test_supervise.py).
"""

import asyncio
import logging
import threading
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, TypeVar, TypeVarTuple

from prometheus_client import Counter

from medserve_server.errors import ServingError

log = logging.getLogger(__name__)

Result = TypeVar("Result")
Arguments = TypeVarTuple("Arguments")

RESTART_SECONDS = 0.1
"""Pause before a failed thread or task is started again."""

INTERNAL_ERRORS = Counter(
    "medserve_internal_errors_total",
    "Failures of a part of the server itself; each is a bug, see the log.",
    ["where"],
    registry=None,
)
"""Of this process. Every registry of metrics shows it."""

_REPORTED = "_medserve_reported"


def report(where: str, error: BaseException, which: str = "") -> None:
    """Logs and counts a failure that is a bug of the server. The same exception is reported once.

    Args:
        where: the part that failed; one of few constants, since it is a label.
        error: what it raised.
        which: of several such parts, for the log alone.
    """
    if getattr(error, _REPORTED, False):
        return
    setattr(error, _REPORTED, True)
    INTERNAL_ERRORS.labels(where).inc()
    log.error("%s%s failed; this is a bug", where, f" {which}" if which else "", exc_info=error)


@contextmanager
def reporting(where: str) -> Iterator[None]:
    """Reports what the block raises, and goes on after it."""
    try:
        yield
    except Exception as error:  # noqa: BLE001 - reported
        report(where, error)


class ThreadStartError(RuntimeError):
    """The operating system cannot start another thread at the moment."""


def start_thread(
    where: str,
    function: Callable[[*Arguments], object],
    *arguments: *Arguments,
    name: str = "",
    restart: bool = False,
) -> threading.Thread:
    """Starts a daemon thread that calls the function and reports what it raises.

    Args:
        where: for `report`.
        function: returns when the thread's work is done.
        arguments: of the function.
        name: of the thread; by default `where`.
        restart: whether the function is called again after it failed.

    Raises:
        ThreadStartError: the thread cannot be started.
    """

    def run() -> None:
        while True:
            try:
                function(*arguments)
            except BaseException as error:  # noqa: BLE001 - reported
                report(where, error)
            else:
                return
            if not restart:
                return
            time.sleep(RESTART_SECONDS)

    thread = threading.Thread(target=run, name=name or where, daemon=True)
    try:
        thread.start()
    except RuntimeError as error:
        raise ThreadStartError(f"a thread is needed: {error}") from error
    return thread


def start_task(where: str, function: Callable[[], Awaitable[None]]) -> asyncio.Task[None]:
    """Starts a task that lasts until it is cancelled or the function returns; after a failure it is called again."""

    async def run() -> None:
        while True:
            try:
                return await function()
            except Exception as error:  # noqa: BLE001 - reported
                report(where, error)
            await asyncio.sleep(RESTART_SECONDS)

    return asyncio.create_task(run(), name=where)


def start_awaited_task(
    where: str,
    function: Callable[[*Arguments], Coroutine[Any, Any, Result]],
    *arguments: *Arguments,
    expected: type[Exception] = ServingError,
) -> asyncio.Task[Result]:
    """Starts a task whose result is awaited; what it raises is reported as well, since nobody may get to await it.

    Args:
        where: for `report`.
        function: what the task runs.
        arguments: of the function.
        expected: errors that are results, and not reported.
    """

    async def run() -> Result:
        try:
            return await function(*arguments)
        except expected:
            raise
        except Exception as error:
            report(where, error)
            raise

    return asyncio.create_task(run(), name=where)


class Pool(ThreadPoolExecutor):
    """Threads for functions whose results are awaited, by `submit`, and for those that nobody waits for, by `start`.

    All threads are started at once. `ThreadPoolExecutor` starts them on demand, after it has queued the function: if
    that fails, the caller is told that the function was not submitted, yet it may run later.

    Args:
        threads: number of threads.
        thread_name_prefix: prefix of their names.

    Raises:
        ThreadStartError: a thread cannot be started; none is left running.
    """

    def __init__(self, threads: int, thread_name_prefix: str = "") -> None:
        super().__init__(threads, thread_name_prefix)
        # Each thread waits for all the others, so that none is idle and every submission starts another one.
        all_started = threading.Barrier(threads)
        try:
            for _ in range(threads):
                super().submit(all_started.wait)
        except RuntimeError as error:
            all_started.abort()
            self.shutdown(cancel_futures=True)
            raise ThreadStartError(f"{threads} threads are needed: {error}") from error

    def start(self, where: str, function: Callable[[*Arguments], object], *arguments: *Arguments) -> None:
        """Has a thread call the function, and reports what it raises.

        Raises:
            RuntimeError: the pool was shut down.
        """
        self.submit(_call, where, function, arguments)


def _call(where: str, function: Callable[[*Arguments], object], arguments: tuple[*Arguments]) -> None:
    try:
        function(*arguments)
    except BaseException as error:  # noqa: BLE001 - reported
        report(where, error)


def call_in_loop(
    loop: asyncio.AbstractEventLoop, function: Callable[[*Arguments], object], *arguments: *Arguments
) -> None:
    """Has an event loop call the function soon, from any thread; `watch` reports what it raises.

    Raises:
        RuntimeError: the loop is closed.
    """
    loop.call_soon_threadsafe(function, *arguments)


def call_in_loop_after(
    loop: asyncio.AbstractEventLoop, seconds: float, function: Callable[[], object]
) -> asyncio.TimerHandle:
    """Has the event loop of this thread call the function later; `watch` reports what it raises."""
    return loop.call_later(seconds, function)


def watch(loop: asyncio.AbstractEventLoop) -> None:
    """Reports what no other part catches: exceptions of callbacks, of tasks nobody awaits, and of other threads."""
    loop.set_exception_handler(_report_loop)
    threading.excepthook = _report_thread


def _report_loop(_: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    error = context.get("exception")
    if isinstance(error, ServingError):  # its call has ended in another way
        return
    if isinstance(error, OSError) and "socket" in context:  # descriptors ran out; asyncio accepts again in a second
        log.warning("a connection can't be accepted now: %s", error.strerror)
        return
    report("event loop", error if isinstance(error, BaseException) else RuntimeError(context["message"]))


def _report_thread(arguments: threading.ExceptHookArgs) -> None:
    if arguments.exc_value is not None:
        report("thread", arguments.exc_value)
