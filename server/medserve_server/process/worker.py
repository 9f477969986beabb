"""A worker process, started and stopped by the supervisor.

Two pipes connect it to the supervisor. Through the first, it receives its settings, reports that it is ready or why it
cannot start, and later sends its metrics. The second carries no data: when it is closed, either by the supervisor or
because the supervisor was killed, the worker stops.
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

# Time in seconds that a worker has to stop, beyond its drain delay and grace period, before it is considered hung.
STOP_SECONDS = 10.0


class Worker:
    """Receives its configuration from the supervisor that started this process, and runs a server accordingly."""

    def __init__(self) -> None:
        pipe, stop_pipe = (int(number) for number in os.environ.pop(DESCRIPTORS).split(","))
        self._pipe = Connection(pipe)
        self._stop_pipe = Connection(stop_pipe, writable=False)
        try:
            self.order: WorkerOrder = self._pipe.recv()
        except (EOFError, OSError):  # the supervisor has already been killed
            os._exit(1)
        self.ready = False
        set_up_process(self.order.settings)

    def make_server(self) -> Server | None:
        """Creates the server; on failure, sends the reason to the supervisor and returns None."""
        try:
            return Server(self.order.settings, self.order.envoy)
        except (ModelLoadError, SettingsError, ModuleNotFoundError, OSError, ThreadStartError) as error:
            self._report_failure(error)
            return None

    async def run(self, server: Server, started: Callable[[], None]) -> int:
        """Serves until the supervisor stops the worker, and returns the exit status of the process.

        Args:
            server: server returned by `make_server`.
            started: called once all models are loaded.
        """

        def report_ready(server: Server) -> None:
            self._pipe.send(served_models(server))
            self.ready = True
            start_thread("metrics", _send_metrics, self._pipe, server)
            started()

        try:
            start_thread("supervisor", self._stop_with_supervisor, server, asyncio.get_running_loop())
            await server.run(report_ready)
        except (ModelLoadError, SettingsError, ModuleNotFoundError, OSError, ThreadStartError) as error:
            if self.ready:
                report("worker", error)
            else:
                self._report_failure(error)
            return 1
        finally:
            self._remove_files()
        return 0

    def _remove_files(self) -> None:
        """Removes Envoy's files if the supervisor, which normally does so, was killed."""
        if self.order.envoy is not None and os.getppid() != self.order.supervisor:
            self.order.envoy.remove_orphaned()

    def _report_failure(self, error: Exception) -> None:
        with suppress(OSError):  # the supervisor has exited
            self._pipe.send(str(error))

    def _stop_with_supervisor(self, server: Server, loop: asyncio.AbstractEventLoop) -> None:
        """Stops the worker when the supervisor closes the pipe or exits; exits forcibly if the shutdown hangs."""
        with suppress(OSError):
            self._stop_pipe.poll(None)
        if not self.ready:  # `_load` exits the process without further cleanup
            self._remove_files()
        with suppress(RuntimeError):  # the loop is already closed
            call_in_loop(loop, server.stop)
        time.sleep(server.settings.drain_delay + 2 * server.settings.grace + STOP_SECONDS)
        log.error("this worker did not stop in time; exiting forcibly")
        os._exit(1)


def _send_metrics(pipe: "Connection[object, object]", server: Server) -> None:
    """Replies to every message with the metrics, or the previous ones if collecting fails, and the readiness."""
    metrics: list[Metric] = []
    with suppress(EOFError, OSError):
        while True:
            pipe.recv()
            with reporting("metrics"):
                metrics = list(server.metrics.registry.collect())
            pipe.send((metrics, server.why_not_ready()))


def main() -> None:
    """Runs a worker in a separate Python process, without Envoy."""
    raise SystemExit(asyncio.run(_run(Worker())))


async def _run(worker: Worker) -> int:
    server = worker.make_server()  # inside the event loop, which grpcio's server is bound to
    return 1 if server is None else await worker.run(server, lambda: None)


if __name__ == "__main__":
    main()
