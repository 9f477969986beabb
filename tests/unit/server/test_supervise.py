"""No thread, task or callback of the server fails silently."""

import ast
import asyncio
import logging
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from medserve_server import supervise
from medserve_server.errors import Overloaded
from servers.server_process import REPOSITORY
from waiting import wait_until

SERVER = REPOSITORY / "server"
# Each of these starts work whose failure may go unnoticed. `run_in_executor` and `to_thread` are awaited.
STARTERS = {
    "Thread",
    "Timer",
    "ThreadPoolExecutor",
    "ProcessPoolExecutor",
    "create_task",
    "ensure_future",
    "TaskGroup",
    "call_soon",
    "call_soon_threadsafe",
    "call_later",
    "call_at",
    "run_coroutine_threadsafe",
    "start_new_thread",
}


def starters(path: Path) -> list[str]:
    """Returns the uses of `STARTERS` in a module, with their lines."""
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        names = [node.attr] if isinstance(node, ast.Attribute) else []
        if isinstance(node, ast.Name):
            names = [node.id]
        if isinstance(node, ast.ImportFrom):
            names = [alias.name for alias in node.names]
        found += [f"{path.name}:{node.lineno}: {name}" for name in names if name in STARTERS]  # type: ignore[attr-defined]
    return found


def test_all_threads_and_tasks_are_started_by_one_module() -> None:
    modules = list(SERVER.rglob("*.py"))
    found = {path.name: starters(path) for path in modules}
    assert found.pop("supervise.py"), "the test finds what it looks for"
    assert [line for lines in found.values() for line in lines] == []


def test_futures_without_waiter_come_from_start() -> None:
    """`submit` of a pool returns a future. If it is discarded, an exception of the function is lost."""
    dropped = [
        f"{path.name}:{node.lineno}"
        for path in SERVER.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Call)
        and isinstance(node.value.func, ast.Attribute)
        and node.value.func.attr in {"submit", "run_in_executor", "to_thread"}
        and ast.unparse(node.value.func.value) not in REPORTING
    ]
    assert dropped == []


# `Model.submit` and `Batcher.submit` return nothing; `Decoders.submit` reports exceptions of its functions.
REPORTING = {"model", "self", "self._batcher", "self._decoders", "super()"}


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> Iterator[pytest.LogCaptureFixture]:
    with caplog.at_level(logging.ERROR, "medserve_server.supervise"):
        yield caplog


def count(where: str) -> float:
    """Returns the value of the metric."""
    (family,) = supervise.INTERNAL_ERRORS.collect()
    return sum(
        sample.value
        for sample in family.samples
        if sample.name.endswith("_total") and sample.labels == {"where": where}
    )


class Failing:
    """Raises on the first calls."""

    def __init__(self, times: int) -> None:
        self.left = times
        self.done = threading.Event()

    def __call__(self) -> None:
        self.left -= 1
        if self.left >= 0:
            raise ZeroDivisionError
        self.done.set()

    async def run(self) -> None:
        self()


def test_a_failed_thread_is_reported(log: pytest.LogCaptureFixture) -> None:
    before = count("test thread")
    thread = supervise.start_thread("test thread", Failing(1))
    thread.join(10)
    assert not thread.is_alive()
    assert count("test thread") == before + 1
    assert [record.getMessage() for record in log.records] == ["test thread failed; this is a bug"]


def test_a_failed_thread_is_restarted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervise, "RESTART_SECONDS", 0)
    function = Failing(3)
    before = count("test restart")
    supervise.start_thread("test restart", function, restart=True).join(10)
    assert function.done.is_set()
    assert count("test restart") == before + 3


async def test_a_failed_task_is_restarted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervise, "RESTART_SECONDS", 0)
    function = Failing(3)
    before = count("test task")
    await supervise.start_task("test task", function.run)
    assert function.done.is_set()
    assert count("test task") == before + 3


async def test_a_task_can_be_cancelled_before_it_starts_and_while_it_waits() -> None:
    for task in (
        supervise.start_task("test cancel", asyncio.Event().wait),  # type: ignore[arg-type]
        supervise.start_awaited_task("test cancel", asyncio.Event().wait),
    ):
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    task = supervise.start_task("test cancel", asyncio.Event().wait)  # type: ignore[arg-type]
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert count("test cancel") == 0


async def test_an_unretrieved_failure_of_a_task_is_reported_but_an_answer_is_not() -> None:
    async def refuse() -> None:
        raise Overloaded("full")

    failed = supervise.start_awaited_task("test awaited", Failing(1).run)
    refused = supervise.start_awaited_task("test refused", refuse)
    await asyncio.wait([failed, refused])
    assert isinstance(failed.exception(), ZeroDivisionError)
    assert isinstance(refused.exception(), Overloaded)
    assert count("test awaited") == 1
    assert count("test refused") == 0


def test_a_failed_pool_function_without_waiter_is_reported() -> None:
    before = count("test pool")
    with supervise.Pool(1) as pool:
        pool.start("test pool", Failing(1))
        function = Failing(0)
        pool.start("test pool", function)
    assert function.done.is_set()
    assert count("test pool") == before + 1


def test_a_propagating_exception_is_counted_once() -> None:
    before = count("test once"), count("test twice")
    error = ZeroDivisionError()
    supervise.report("test once", error)
    supervise.report("test twice", error)
    assert (count("test once"), count("test twice")) == (before[0] + 1, before[1])


async def test_uncaught_exceptions_are_reported(log: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threading, "excepthook", threading.excepthook)
    supervise.watch(asyncio.get_running_loop())
    before = count("event loop"), count("thread")
    supervise.call_in_loop(asyncio.get_running_loop(), Failing(1))
    thread = threading.Thread(target=Failing(1))
    thread.start()
    thread.join()
    for _ in range(3):
        await asyncio.sleep(0)
    wait_until(lambda: (count("event loop"), count("thread")) == (before[0] + 1, before[1] + 1), "both to be counted")
    assert {record.getMessage() for record in log.records} == {
        "event loop failed; this is a bug",
        "thread failed; this is a bug",
    }
