"""The processes that serve on one port: started, watched, replaced when they die, and stopped together.

The supervisor serves no call and loads no model. It holds the port without listening, and the kernel shares connections
out among the workers that listen.
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

# How often in a row a worker may end soon after its start, and the time before the second start; it doubles each time.
ATTEMPTS = 5
RETRY_SECONDS = 0.5
# A worker that lived that long does not count as one of those.
SOON_SECONDS = 60.0
# How often the metrics are looked at: a worker that is killed takes at most so much of its counts along.
POLL_INTERVAL = 1.0

Show = Callable[[Settings, Sequence[ServedModel], int, int], None]


class Supervisor:
    """Keeps `settings.workers` workers serving.

    Args:
        settings: of all of them.
        show: is given what a worker serves, with the two ports, once every worker is ready.

    Raises:
        SettingsError: models are to be loaded on request, and a request reaches only one of several workers.
    """

    def __init__(self, settings: Settings, show: Show) -> None:
        if settings.workers > 1 and settings.model_control == "explicit":
            raise SettingsError("--model-control explicit would reach one of the --workers; use poll, or one worker")
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
        with ExitStack() as ports, self._folder():
            self._settings = _hold_ports(self._settings, ports)
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
        if self._signals > 1 or self._failed:
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
            _kill(process)

    def _stop(self) -> None:
        self._stopping = True
        for task in self._tasks:
            if not task.cancelling():
                task.cancel()

    async def _look(self) -> None:
        """Keeps what is known of each worker's counts from growing old."""
        while True:
            await asyncio.sleep(POLL_INTERVAL)
            await asyncio.to_thread(self._metrics.collect)

    async def _keep(self, number: int) -> None:
        """Runs one worker after another, until cancelled.

        Raises:
            ChildProcessError: one can't start.
        """
        loop = asyncio.get_running_loop()
        failures = 0
        while True:
            began = loop.time()
            try:
                failure = await self._run_worker(number)
            except (SettingsError, OSError) as error:
                failure = str(error)
            except Exception as error:  # noqa: BLE001 - reported; the other workers go on
                report("worker", error)
                failure = f"a worker can't be started: {type(error).__name__}: {error}"
            failures = failures + 1 if loop.time() < began + SOON_SECONDS else 1
            if number not in self._served or failures == ATTEMPTS:
                raise ChildProcessError(failure)
            log.error("%s; another takes its place", failure)
            if failures > 1:
                await asyncio.sleep(RETRY_SECONDS * 2 ** (failures - 2))

    async def _run_worker(self, number: int) -> str:
        """Runs a worker to its end, and returns what that was."""
        order = WorkerOrder(self._settings, os.getpid(), self._envoy_files(number))
        pipe, its_pipe = multiprocessing.Pipe()
        its_life, life = multiprocessing.Pipe(duplex=False)
        descriptors = its_pipe.fileno(), its_life.fileno()
        process = await asyncio.create_subprocess_exec(
            *_command(order),
            env=_environment(order) | {DESCRIPTORS: ",".join(map(str, descriptors))},
            pass_fds=(*descriptors, *self._locks),
            # Ctrl-C in a terminal goes to the supervisor alone.
            start_new_session=True,
        )
        its_pipe.close()
        its_life.close()
        self._processes[number] = process
        link = None
        told: list[ServedModel] | str = ""
        try:
            with suppress(BrokenPipeError):  # it has ended
                pipe.send(order)
            await _readable(pipe.fileno())
            told = _first_message(pipe)
            if isinstance(told, list):
                link = self._metrics.add(pipe)
                self._note_ready(number, process, told)
                await process.wait()
        finally:
            life.close()
            if self._stopping and link is None:  # it serves nobody yet, and may take long to see that it is to end
                _kill(process)
            elif self._stopping and await process.wait() > 0:  # below 0: someone else ended it
                self._failed = True
            await process.wait()
            if link is not None:
                self._metrics.remove(link)
            pipe.close()
            if order.envoy is not None:
                order.envoy.remove()
        if isinstance(told, list):
            return f"worker {number} (process {process.pid}) {_end_of(process)}"
        return told or f"a worker {_end_of(process)} before it was ready"

    @contextmanager
    def _folder(self) -> Iterator[None]:
        """Makes the private folder of Envoy's files, where there is an Envoy."""
        if self._settings.transport != "envoy":
            yield
            return
        with private_folder() as (folder, lock):
            self._envoy_folder = folder
            self._locks = (lock,)
            yield

    def _envoy_files(self, number: int) -> EnvoyFiles | None:
        """The files of a worker that runs in Envoy, its configuration written."""
        if self._settings.transport != "envoy":
            return None
        files = EnvoyFiles(self._envoy_folder, number)
        write_envoy_files(self._settings, files)
        return files

    def _note_ready(self, number: int, process: Process, rows: list[ServedModel]) -> None:
        if number in self._served:
            self._replaced.inc()
            log.info("worker %d is process %d now", number, process.pid)
            return
        self._served.add(number)
        if len(self._served) == self._settings.workers:
            self._show(self._settings, rows, self._settings.port, self._metrics_port)


def _kill(process: Process) -> None:
    with suppress(ProcessLookupError):  # it has ended
        process.kill()


async def _readable(descriptor: int) -> None:
    """Waits until there is something to read, or the other end is closed."""
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
    """What a worker serves, or why it can't; nothing where it ended without a word."""
    try:
        told: list[ServedModel] | str = pipe.recv()
    except (EOFError, ConnectionResetError):
        return ""
    return told


def _end_of(process: Process) -> str:
    code = process.returncode
    return (
        f"was ended by {signal.Signals(-code).name}" if code is not None and code < 0 else f"ended with status {code}"
    )


def _hold_ports(settings: Settings, ports: ExitStack) -> Settings:
    """The settings with the ports that are held until the stack is closed.

    Raises:
        OSError: one is taken.
    """
    held = {"port": ports.enter_context(_held_port(settings.host, settings.port, "--port"))}
    if settings.serves_http_port:
        held["http_port"] = ports.enter_context(_held_port(settings.host, settings.http_port, "--http-port"))
    return settings.model_copy(update=held)


@contextmanager
def _held_port(host: str, port: int, flag: str) -> Iterator[int]:
    """Binds a port without listening, so that it is ours alone, and stays ours while workers come and go.

    Raises:
        OSError: it is taken.
    """
    family, kind, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    with socket.socket(family, kind) as held:
        # Connections in TIME_WAIT may have the port, but no other socket, not even one that would share it.
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            held.bind(address)
        except OSError as error:
            name = host_and_port(host, port)
            raise OSError(f"can't listen on {name}: {error.strerror}; is it taken? {flag} chooses another") from error
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 0)
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        yield held.getsockname()[1]
