"""Supervises the worker processes that share one port: starts, monitors, replaces and stops them.

The supervisor itself handles no calls and loads no models. It binds the port without listening, and the kernel
distributes connections among the workers that listen on it.
"""

import asyncio
import logging
import multiprocessing
import os
import signal
import socket
import sys
from asyncio.subprocess import Process
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from multiprocessing.connection import Connection

from prometheus_client import CollectorRegistry, Counter

from medserve_server.config import Settings, SettingsError, host_and_port
from medserve_server.http.metrics_page import serve_metrics
from medserve_server.private_folder import private_folder
from medserve_server.process.startup import ServedModel
from medserve_server.process.worker_order import DESCRIPTORS, WorkerOrder
from medserve_server.supervise import report, start_awaited_task, start_task, watch
from medserve_server.telemetry.worker_metrics import WorkerMetrics
from medserve_server.transport.envoy.files import EnvoyFiles
from medserve_server.transport.envoy.process import envoy_command, envoy_environment, write_envoy_files

log = logging.getLogger(__name__)

# Consecutive early exits of a worker after which the supervisor gives up, and the delay before the second restart in
# seconds, which doubles with each further one.
MAX_EARLY_EXITS = 5
RETRY_SECONDS = 0.5
# An exit is early if the worker ran for less than this many seconds.
EARLY_EXIT_SECONDS = 60.0
# Seconds between two collections of the metrics: a worker that is killed loses at most the counts since the last one.
POLL_INTERVAL = 1.0

Show = Callable[[Settings, Sequence[ServedModel], int, int], None]


class Supervisor:
    """Keeps `settings.workers` workers running.

    Args:
        settings: settings of all workers.
        show: called with the settings, the served models and the two ports once all workers are ready.

    Raises:
        SettingsError: several workers with --model-control explicit, since a load request reaches only one of them.
    """

    def __init__(self, settings: Settings, show: Show) -> None:
        if settings.workers > 1 and settings.model_control == "explicit":
            raise SettingsError(
                "--model-control explicit would reach only one of the --workers; use poll, or one worker"
            )
        self._settings = settings
        self._show = show
        self._processes: dict[int, Process] = {}
        self._served: set[int] = set()
        self._tasks: list[asyncio.Task[None]] = []
        self._locks: tuple[int, ...] = ()
        self._stopping = False
        self._failed = False
        self._signals = 0
        self._metrics = WorkerMetrics()
        self._registry = CollectorRegistry()
        self._registry.register(self._metrics)
        self._replaced = Counter(
            "medserve_workers_replaced_total",
            "Workers that exited unexpectedly and were replaced.",
            registry=self._registry,
        )

    async def run(self) -> None:
        """Serves until SIGTERM or SIGINT; a second signal kills the workers immediately.

        Raises:
            OSError: a port is already in use, or a worker cannot start; the message gives the reason.
        """
        loop = asyncio.get_running_loop()
        watch(loop)
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._on_signal)
        host, metrics_port = self._settings.host, self._settings.metrics_port
        with ExitStack() as ports, self._folder():
            self._settings = _reserve_ports(self._settings, ports)
            self._metrics_port, stop_metrics = serve_metrics(
                self._registry, host, metrics_port, self._settings.metrics_token_file, self.why_not_ready
            )
            polling = start_task("worker metrics", self._poll_metrics)
            numbers = range(self._settings.workers)
            self._tasks = [
                start_awaited_task("worker", self._keep_running, number, expected=ChildProcessError)
                for number in numbers
            ]
            await asyncio.wait(self._tasks, return_when=asyncio.FIRST_COMPLETED)
            self._stop()
            await asyncio.wait(self._tasks)
            polling.cancel()
            stop_metrics()
        for error in [task.exception() for task in self._tasks if not task.cancelled()]:
            if error is not None:
                raise error
        if self._signals > 1 or self._failed:
            raise SystemExit(1)

    def why_not_ready(self) -> str:
        """Returns the reason why no worker accepts work as one line; empty if one does. Thread-safe."""
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
        log.warning("second stop signal: aborting calls in progress")
        for process in self._processes.values():
            _kill(process)

    def _stop(self) -> None:
        self._stopping = True
        for task in self._tasks:
            if not task.cancelling():
                task.cancel()

    async def _poll_metrics(self) -> None:
        """Collects the workers' metrics periodically, so that few counts are lost if a worker is killed."""
        while True:
            await asyncio.sleep(POLL_INTERVAL)
            await asyncio.to_thread(self._metrics.collect)

    async def _keep_running(self, number: int) -> None:
        """Runs a worker and replaces it whenever it exits, until cancelled.

        Raises:
            ChildProcessError: the worker failed to start, or exited early too often.
        """
        loop = asyncio.get_running_loop()
        failures = 0
        while True:
            began = loop.time()
            try:
                failure = await self._run_worker(number)
            except (SettingsError, OSError) as error:
                failure = str(error)
            except Exception as error:  # noqa: BLE001 - reported; the other workers continue
                report("worker", error)
                failure = f"a worker cannot be started: {type(error).__name__}: {error}"
            failures = failures + 1 if loop.time() < began + EARLY_EXIT_SECONDS else 1
            if number not in self._served or failures == MAX_EARLY_EXITS:
                raise ChildProcessError(failure)
            log.error("%s; starting a replacement", failure)
            if failures > 1:
                await asyncio.sleep(RETRY_SECONDS * 2 ** (failures - 2))

    async def _run_worker(self, number: int) -> str:
        """Runs a worker until it exits, and returns a description of how it ended."""
        order = WorkerOrder(self._settings, os.getpid(), self._envoy_files(number))
        pipe, its_pipe = multiprocessing.Pipe()
        its_stop_pipe, stop_pipe = multiprocessing.Pipe(duplex=False)
        descriptors = its_pipe.fileno(), its_stop_pipe.fileno()
        process = await asyncio.create_subprocess_exec(
            *_command(order),
            env=_environment(order) | {DESCRIPTORS: ",".join(map(str, descriptors))},
            pass_fds=(*descriptors, *self._locks),
            # Ctrl-C in a terminal is sent only to the supervisor.
            start_new_session=True,
        )
        its_pipe.close()
        its_stop_pipe.close()
        self._processes[number] = process
        link = None
        message: list[ServedModel] | str = ""
        try:
            with suppress(BrokenPipeError):  # it has exited
                pipe.send(order)
            await _readable(pipe.fileno())
            message = _first_message(pipe)
            if isinstance(message, list):
                link = self._metrics.add(pipe)
                self._note_ready(number, process, message)
                await process.wait()
        finally:
            stop_pipe.close()
            if self._stopping and link is None:  # it serves no calls yet, and may notice the stop request late
                _kill(process)
            elif self._stopping and await process.wait() > 0:  # negative: killed by a signal from outside
                self._failed = True
            await process.wait()
            if link is not None:
                self._metrics.remove(link)
            pipe.close()
            if order.envoy is not None:
                order.envoy.remove()
        if isinstance(message, list):
            return f"worker {number} (process {process.pid}) {_exit_description(process)}"
        return message or f"a worker {_exit_description(process)} before it was ready"

    @contextmanager
    def _folder(self) -> Iterator[None]:
        """Creates the private folder for Envoy's files if the transport is Envoy."""
        if self._settings.transport != "envoy":
            yield
            return
        with private_folder() as (folder, lock):
            self._envoy_folder = folder
            self._locks = (lock,)
            yield

    def _envoy_files(self, number: int) -> EnvoyFiles | None:
        """Writes the configuration of a worker's Envoy and returns its files; None with another transport."""
        if self._settings.transport != "envoy":
            return None
        files = EnvoyFiles(self._envoy_folder, number)
        write_envoy_files(self._settings, files)
        return files

    def _note_ready(self, number: int, process: Process, rows: list[ServedModel]) -> None:
        if number in self._served:
            self._replaced.inc()
            log.info("worker %d was replaced by process %d", number, process.pid)
            return
        self._served.add(number)
        if len(self._served) == self._settings.workers:
            self._show(self._settings, rows, self._settings.port, self._metrics_port)


def _kill(process: Process) -> None:
    with suppress(ProcessLookupError):  # it has exited
        process.kill()


async def _readable(descriptor: int) -> None:
    """Waits until the descriptor is readable or its other end is closed."""
    loop = asyncio.get_running_loop()
    readable = asyncio.Event()
    loop.add_reader(descriptor, readable.set)
    try:
        await readable.wait()
    finally:
        loop.remove_reader(descriptor)


def _command(order: WorkerOrder) -> list[str]:
    if order.envoy is not None:
        return envoy_command(order.envoy.config)
    return [sys.executable, *(f"-W{option}" for option in sys.warnoptions), "-m", "medserve_server.process.worker"]


def _environment(order: WorkerOrder) -> dict[str, str]:
    return envoy_environment() if order.envoy is not None else dict(os.environ)


def _first_message(pipe: Connection) -> list[ServedModel] | str:
    """Returns the models a worker serves, or why it cannot start; empty if it exited without a message."""
    try:
        message: list[ServedModel] | str = pipe.recv()
    except (EOFError, ConnectionResetError):
        return ""
    return message


def _exit_description(process: Process) -> str:
    code = process.returncode
    return (
        f"was killed by {signal.Signals(-code).name}" if code is not None and code < 0 else f"exited with status {code}"
    )


def _reserve_ports(settings: Settings, ports: ExitStack) -> Settings:
    """Reserves the ports until the stack is closed, and returns the settings with their numbers.

    Raises:
        OSError: a port is already in use.
    """
    reserved = {"port": ports.enter_context(_reserved_port(settings.host, settings.port, "--port"))}
    if settings.serves_http_port:
        reserved["http_port"] = ports.enter_context(_reserved_port(settings.host, settings.http_port, "--http-port"))
    return settings.model_copy(update=reserved)


@contextmanager
def _reserved_port(host: str, port: int, flag: str) -> Iterator[int]:
    """Binds a port without listening, which reserves it while workers are started and replaced.

    Raises:
        OSError: the port is already in use.
    """
    family, kind, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    with socket.socket(family, kind) as reserved:
        # Allows connections in TIME_WAIT on the port, but no other socket, not even one with SO_REUSEPORT.
        reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            reserved.bind(address)
        except OSError as error:
            name = host_and_port(host, port)
            raise OSError(
                f"cannot listen on {name}: {error.strerror}; if it is in use, choose another port with {flag}"
            ) from error
        reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 0)
        reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        yield reserved.getsockname()[1]
