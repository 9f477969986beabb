"""One of the processes that serve, started and ended by the supervisor.

Two pipes join it to the supervisor. Through one it is given its settings, says that it is ready or why it can't be, and
later tells its metrics. Nothing goes through the other: its end tells the worker to stop, be it that the supervisor
closed it or that the supervisor was killed.
"""

import asyncio
import logging
import os
import time
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.connection import Connection

from prometheus_client import Metric

from medserve_server.config import SettingsError
from medserve_server.errors import ModelLoadError
from medserve_server.process.lifecycle import Server
from medserve_server.process.process_setup import set_up_process
from medserve_server.process.served import served_models
from medserve_server.process.worker_order import DESCRIPTORS, WorkerOrder
from medserve_server.supervise import ThreadStartError, call_in_loop, report, reporting, start_thread

log = logging.getLogger(__name__)

# What a worker gets beyond its own limits to stop, before it is taken to hang.
HANGS_SECONDS = 10.0


class Worker:
    """Takes the order of the supervisor that started this process, and carries it out."""

    def __init__(self) -> None:
        pipe, life = (int(number) for number in os.environ.pop(DESCRIPTORS).split(","))
        self._pipe = Connection(pipe)
        self._life = Connection(life, writable=False)
        try:
            self.order: WorkerOrder = self._pipe.recv()
        except (EOFError, OSError):  # the supervisor was killed already
            os._exit(1)
        self.ready = False
        set_up_process(self.order.settings)

    def make_server(self) -> Server | None:
        """Makes the server; None where it can't be had, which the supervisor is told."""
        try:
            return Server(self.order.settings, self.order.envoy)
        except (ModelLoadError, SettingsError, ModuleNotFoundError, OSError, ThreadStartError) as error:
            self._give_up(error)
            return None

    async def run(self, server: Server, started: Callable[[], None]) -> int:
        """Serves until the supervisor ends it, and returns the status of the process.

        Args:
            server: What `make_server` gave.
            started: Called when all models are loaded.
        """

        def tell(server: Server) -> None:
            self._pipe.send(served_models(server))
            self.ready = True
            start_thread("metrics", _tell_metrics, self._pipe, server)
            started()

        try:
            start_thread("supervisor", self._stop_with, server, asyncio.get_running_loop())
            await server.run(tell)
        except (ModelLoadError, SettingsError, ModuleNotFoundError, OSError, ThreadStartError) as error:
            if self.ready:
                report("worker", error)
            else:
                self._give_up(error)
            return 1
        finally:
            self._remove_files()
        return 0

    def _remove_files(self) -> None:
        """Removes what a supervisor that was killed can't."""
        if self.order.envoy is not None and os.getppid() != self.order.supervisor:
            self.order.envoy.remove_orphaned()

    def _give_up(self, error: Exception) -> None:
        with suppress(OSError):  # nobody listens any more
            self._pipe.send(str(error))

    def _stop_with(self, server: Server, loop: asyncio.AbstractEventLoop) -> None:
        """Stops the worker when the supervisor says so or is gone; by force where it can't stop by itself."""
        with suppress(OSError):
            self._life.poll(None)
        if not self.ready:  # it ends while it loads, with nothing to clean up after it
            self._remove_files()
        with suppress(RuntimeError):  # the loop is over already
            call_in_loop(loop, server.stop)
        time.sleep(server.settings.drain_delay + 2 * server.settings.grace + HANGS_SECONDS)
        log.error("this worker hangs and is ended by force")
        os._exit(1)


def _tell_metrics(pipe: "Connection[object, object]", server: Server) -> None:
    """Answers whatever comes with the metrics, the last ones where these can't be collected, and the readiness."""
    metrics: list[Metric] = []
    with suppress(EOFError, OSError):
        while True:
            pipe.recv()
            with reporting("metrics"):
                metrics = list(server.metrics.registry.collect())
            pipe.send((metrics, server.why_not_ready()))


def main() -> None:
    """Runs a worker that is a process of Python."""
    raise SystemExit(asyncio.run(_run(Worker())))


async def _run(worker: Worker) -> int:
    server = worker.make_server()  # in the event loop to which grpcio's server then belongs
    return 1 if server is None else await worker.run(server, lambda: None)


if __name__ == "__main__":
    main()
