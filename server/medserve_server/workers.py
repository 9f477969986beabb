"""Several processes on one port: started, watched, replaced when they die, and stopped together.

The supervisor serves no call. It holds the port without listening, and the kernel shares connections out among the
workers that listen, which each does only when its models are loaded. Two pipes join it to each worker. Through one the
worker says that it is ready, or why it can't be, and later tells its metrics. Nothing goes through the other: its end
tells the worker to stop, be it that the supervisor closed it or that the supervisor was killed.
"""

import asyncio
import logging
import multiprocessing
import os
import signal
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess

from prometheus_client import CollectorRegistry, Counter, Metric

from medserve_server.config import Settings, SettingsError
from medserve_server.errors import ModelLoadError
from medserve_server.lifecycle import Server
from medserve_server.metrics_page import serve_metrics
from medserve_server.startup import ServedModel
from medserve_server.supervise import (
    ThreadStartError,
    call_in_loop,
    report,
    reporting,
    start_awaited_task,
    start_task,
    start_thread,
    watch,
)
from medserve_server.worker_metrics import WorkerMetrics

log = logging.getLogger(__name__)

# How often in a row a worker may fail to start in the place of one that served, and the time between.
ATTEMPTS = 3
RETRY_SECONDS = 1.0
# How often the metrics are looked at: a worker that is killed takes at most so much of its counts along.
LOOK_SECONDS = 1.0
# What a worker gets beyond its own limits to stop, before it is taken to hang.
HANGS_SECONDS = 10.0

Prepare = Callable[[Settings], None]
Describe = Callable[[Server], list[ServedModel]]
Show = Callable[[Settings, Sequence[ServedModel], int, int], None]


class Supervisor:
    """Keeps `settings.workers` workers serving.

    Args:
        settings: of all of them.
        prepare: what each worker does first, such as logging.
        describe: what a worker serves.
        show: is given them, with the two ports, once every worker is ready.

    Raises:
        SettingsError: models are to be loaded on request, and a request reaches only one worker.
    """

    def __init__(self, settings: Settings, prepare: Prepare, describe: Describe, show: Show) -> None:
        if settings.model_control == "explicit":
            raise SettingsError("--model-control explicit would reach one of the --workers; use poll, or one worker")
        self._settings = settings
        self._prepare = prepare
        self._describe = describe
        self._show = show
        self._context = multiprocessing.get_context("spawn")
        self._processes: dict[int, SpawnProcess] = {}
        self._served: set[int] = set()
        self._tasks: list[asyncio.Task[None]] = []
        self._signals = 0
        self._stopping = False
        self._metrics = WorkerMetrics()
        self._registry = CollectorRegistry()
        self._registry.register(self._metrics)
        self._replaced = Counter(
            "medserve_workers_replaced_total", "Workers that died and were replaced.", registry=self._registry
        )

    async def run(self) -> None:
        """Serves until SIGTERM or SIGINT; a second one ends it at once.

        Raises:
            OSError: a port is taken, or a worker can't start; the message says why.
        """
        loop = asyncio.get_running_loop()
        watch(loop)
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._on_signal)
        host, metrics_port = self._settings.host, self._settings.metrics_port
        with _held_port(self._settings) as port:
            self._settings = self._settings.model_copy(update={"port": port})
            self._metrics_port, stop_metrics = serve_metrics(
                self._registry, host, metrics_port, self._settings.metrics_token_file, self.why_not_ready
            )
            looking = start_task("worker metrics", self._look)
            numbers = range(self._settings.workers)
            self._tasks = [
                start_awaited_task("worker", self._keep, number, expected=ChildProcessError) for number in numbers
            ]
            await asyncio.wait(self._tasks, return_when=asyncio.FIRST_COMPLETED)
            self._stop()
            await asyncio.wait(self._tasks)
            looking.cancel()
            stop_metrics()
        for error in [task.exception() for task in self._tasks if not task.cancelled()]:
            if error is not None:
                raise error
        if self._signals > 1:
            raise SystemExit(1)

    def why_not_ready(self) -> str:
        """Says in a line why no worker takes work; empty where one does. Any thread may ask."""
        if self._stopping:
            return "stopping"
        reasons = self._metrics.why_not_ready()
        if not reasons:
            return "loading models"
        return "" if "" in reasons else reasons[0]

    def _on_signal(self) -> None:
        self._signals += 1
        if self._signals == 1:
            self._stop()
            return
        log.warning("asked to stop a second time: calls that are being answered are dropped")
        for process in self._processes.values():
            process.kill()

    def _stop(self) -> None:
        self._stopping = True
        for task in self._tasks:
            if not task.cancelling():
                task.cancel()

    async def _look(self) -> None:
        """Keeps what is known of each worker's counts from growing old."""
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            await asyncio.to_thread(self._metrics.collect)

    async def _keep(self, number: int) -> None:
        """Runs one worker after another, until cancelled.

        Raises:
            ChildProcessError: one can't start.
        """
        failures = 0
        while True:
            try:
                failure = await self._run_worker(number)
            except Exception as error:  # noqa: BLE001 - reported; the other workers go on
                report("worker", error)
                failure = f"a worker can't be started: {type(error).__name__}: {error}"
            failures = failures + 1 if failure else 0
            if failure and (number not in self._served or failures == ATTEMPTS):
                raise ChildProcessError(failure)
            if failure:
                log.error("worker %d can't be replaced: %s; trying again", number, failure)
                await asyncio.sleep(RETRY_SECONDS)

    async def _run_worker(self, number: int) -> str:
        """Runs a worker to its end; returns why it could not start, nothing where it could."""
        pipe, its_pipe = self._context.Pipe()
        its_life, life = self._context.Pipe(duplex=False)
        arguments = (self._settings, its_pipe, its_life, self._prepare, self._describe)
        process = self._context.Process(target=_work, args=arguments)
        process.start()
        its_pipe.close()
        its_life.close()
        self._processes[number] = process
        link = None
        try:
            await _readable(pipe.fileno())
            told = _first_message(pipe)
            if isinstance(told, list):
                link = self._metrics.add(pipe)
                self._note_ready(number, process, told)
                await _readable(process.sentinel)
        finally:
            life.close()
            await _readable(process.sentinel)
            process.join()
            if link is not None:
                self._metrics.remove(link)
            pipe.close()
        if isinstance(told, list):
            log.error("worker %d (process %d) %s; another takes its place", number, process.pid, _end_of(process))
            return ""
        return told or f"a worker {_end_of(process)} before it was ready"

    def _note_ready(self, number: int, process: SpawnProcess, rows: list[ServedModel]) -> None:
        if number in self._served:
            self._replaced.inc()
            log.info("worker %d is process %d now", number, process.pid)
            return
        self._served.add(number)
        if len(self._served) == self._settings.workers:
            self._show(self._settings, rows, self._settings.port, self._metrics_port)


async def _readable(descriptor: int) -> None:
    """Waits until there is something to read, or the other end is closed."""
    loop = asyncio.get_running_loop()
    readable = asyncio.Event()
    loop.add_reader(descriptor, readable.set)
    try:
        await readable.wait()
    finally:
        loop.remove_reader(descriptor)


def _first_message(pipe: Connection) -> list[ServedModel] | str:
    """What a worker serves, or why it can't; nothing where it ended without a word."""
    try:
        told: list[ServedModel] | str = pipe.recv()
    except (EOFError, ConnectionResetError):
        return ""
    return told


def _end_of(process: SpawnProcess) -> str:
    code = process.exitcode
    return (
        f"was ended by {signal.Signals(-code).name}" if code is not None and code < 0 else f"ended with status {code}"
    )


@contextmanager
def _held_port(settings: Settings) -> Iterator[int]:
    """Binds the port without listening, so that it is ours alone, and stays ours while workers come and go.

    Raises:
        OSError: it is taken.
    """
    family, kind, _, _, address = socket.getaddrinfo(settings.host, settings.port, type=socket.SOCK_STREAM)[0]
    with socket.socket(family, kind) as held:
        # Connections in TIME_WAIT may have the port, but no other socket, not even one that would share it.
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            held.bind(address)
        except OSError as error:
            raise OSError(
                f"can't listen on {settings.address}: {error.strerror}; is it taken? --port chooses another"
            ) from error
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 0)
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        yield held.getsockname()[1]


def _work(settings: Settings, pipe: Connection, life: Connection, prepare: Prepare, describe: Describe) -> None:
    """What a worker process does."""
    prepare(settings)
    ready = False

    def started(server: Server) -> None:
        nonlocal ready
        pipe.send(describe(server))
        ready = True
        start_thread("metrics", _tell_metrics, pipe, server)

    async def serve() -> None:
        server = Server(settings)
        start_thread("supervisor", _stop_with, life, server, asyncio.get_running_loop())
        await server.run(started)

    try:
        asyncio.run(serve())
    except (ModelLoadError, SettingsError, ModuleNotFoundError, OSError, ThreadStartError) as error:
        if ready:
            report("worker", error)
            raise SystemExit(1) from None
        with suppress(OSError):  # nobody listens any more
            pipe.send(str(error))
        raise SystemExit(1) from None
    except Exception as error:  # noqa: BLE001 - reported; multiprocessing would print it past the log
        report("worker", error)
        raise SystemExit(1) from None


def _tell_metrics(pipe: Connection, server: Server) -> None:
    """Answers whatever comes with the metrics, the last ones where these can't be collected, and the readiness."""
    metrics: list[Metric] = []
    with suppress(EOFError, OSError):
        while True:
            pipe.recv()
            with reporting("metrics"):
                metrics = list(server.metrics.registry.collect())
            pipe.send((metrics, server.why_not_ready()))


def _stop_with(life: Connection, server: Server, loop: asyncio.AbstractEventLoop) -> None:
    """Stops the worker when the supervisor says so or is gone; by force where it can't stop by itself."""
    with suppress(OSError):
        life.poll(None)
    with suppress(RuntimeError):  # the loop is over already
        call_in_loop(loop, server.stop)
    time.sleep(server.settings.drain_delay + 2 * server.settings.grace + HANGS_SECONDS)
    log.error("this worker hangs and is ended by force")
    os._exit(1)
