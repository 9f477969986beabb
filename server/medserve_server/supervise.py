"""Starts all threads and tasks of the server, so that none of them can fail silently.

Any failure other than a request's own errors is logged and counted in `medserve_internal_errors_total`, and the thread
or task is restarted if it has to keep running. No other module starts threads or tasks
(tests/unit/server/test_supervise.py).
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
"""Delay before a failed thread or task is restarted."""

INTERNAL_ERRORS = Counter(
    "medserve_internal_errors_total",
    "Internal failures of the server, by component; each is a bug, see the log.",
    ["where"],
    registry=None,
)
"""Counter of this process, registered with every metrics registry."""

_REPORTED = "_medserve_reported"


def report(where: str, error: BaseException, which: str = "") -> None:
    """Logs and counts a failure that is a bug of the server. The same exception is reported only once.

    Args:
        where: the component that failed; one of few constants, since it becomes a metric label.
        error: the exception that it raised.
        which: which of several such components, for the log only.
    """
    if getattr(error, _REPORTED, False):
        return
    setattr(error, _REPORTED, True)
    INTERNAL_ERRORS.labels(where).inc()
    log.error("%s%s failed; this is a bug", where, f" {which}" if which else "", exc_info=error)


@contextmanager
def reporting(where: str) -> Iterator[None]:
    """Context manager that reports an exception of the block and suppresses it."""
    try:
        yield
    except Exception as error:  # noqa: BLE001 - reported
        report(where, error)


class ThreadStartError(RuntimeError):
    """The operating system cannot start another thread."""


def start_thread(
    where: str,
    function: Callable[[*Arguments], object],
    *arguments: *Arguments,
    name: str = "",
    restart: bool = False,
) -> threading.Thread:
    """Starts a daemon thread that calls the function and reports its exceptions.

    Args:
        where: component name for `report`.
        function: function to call; the thread ends when it returns.
        arguments: arguments of the function.
        name: name of the thread; by default `where`.
        restart: whether to call the function again after a failure.

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
        raise ThreadStartError(f"cannot start a thread: {error}") from error
    return thread


def start_task(where: str, function: Callable[[], Awaitable[None]]) -> asyncio.Task[None]:
    """Starts a task that runs until it is cancelled or the function returns; restarts the function after a failure."""

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
    """Starts a task whose result is awaited; also reports its exceptions, since it may never be awaited.

    Args:
        where: component name for `report`.
        function: coroutine function that the task runs.
        arguments: arguments of the function.
        expected: exceptions that are valid outcomes and are not reported.
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
    """Thread pool: `submit` for functions whose result is awaited, `start` for fire-and-forget functions.

    All threads are started by the constructor. `ThreadPoolExecutor` starts them on demand, after it has queued the
    function: if that fails, `submit` raises, yet the function may still run later.

    Args:
        threads: number of threads.
        thread_name_prefix: prefix of the thread names.

    Raises:
        ThreadStartError: a thread cannot be started; those already started are stopped.
    """

    def __init__(self, threads: int, thread_name_prefix: str = "") -> None:
        super().__init__(threads, thread_name_prefix)
        # Each thread waits for all the others, so that none is idle and every submission starts another thread.
        all_started = threading.Barrier(threads)
        try:
            for _ in range(threads):
                super().submit(all_started.wait)
        except RuntimeError as error:
            all_started.abort()
            self.shutdown(cancel_futures=True)
            raise ThreadStartError(f"cannot start {threads} threads: {error}") from error

    def start(self, where: str, function: Callable[[*Arguments], object], *arguments: *Arguments) -> None:
        """Runs the function in a thread of the pool and reports its exceptions.

        Raises:
            RuntimeError: the pool is shut down.
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
    """Schedules the function on an event loop, from any thread; `watch` reports its exceptions.

    Raises:
        RuntimeError: the loop is closed.
    """
    loop.call_soon_threadsafe(function, *arguments)


def call_in_loop_after(
    loop: asyncio.AbstractEventLoop, seconds: float, function: Callable[[], object]
) -> asyncio.TimerHandle:
    """Schedules the function on this thread's event loop after a delay; `watch` reports its exceptions."""
    return loop.call_later(seconds, function)


def watch(loop: asyncio.AbstractEventLoop) -> None:
    """Installs handlers that report uncaught exceptions of callbacks, of tasks never awaited, and of threads."""
    loop.set_exception_handler(_report_loop)
    threading.excepthook = _report_thread


def _report_loop(_: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    error = context.get("exception")
    if isinstance(error, ServingError):  # its call has already ended otherwise
        return
    if isinstance(error, OSError) and "socket" in context:  # out of file descriptors; asyncio retries after a second
        log.warning("cannot accept a connection now: %s", error.strerror)
        return
    report("event loop", error if isinstance(error, BaseException) else RuntimeError(context["message"]))


def _report_thread(arguments: threading.ExceptHookArgs) -> None:
    if arguments.exc_value is not None:
        report("thread", arguments.exc_value)
