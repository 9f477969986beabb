"""Watchdog: terminates model runs that exceed --max-run-seconds, and suspends models whose runs hang."""

import logging
import os
import threading
import time

from medserve_server.engine.session import RUNS, Session
from medserve_server.supervise import reporting, start_thread

log = logging.getLogger(__name__)

POLL_INTERVAL = 0.5
# Time in seconds that runs have to terminate at shutdown before the process exits regardless.
EXIT_SECONDS = 5.0


class Watchdog:
    """Monitors all runs of this process, including those of models that are being loaded.

    Args:
        max_seconds: maximum duration of a run, in seconds.
    """

    def __init__(self, max_seconds: float) -> None:
        self._max_seconds = max_seconds
        self._hung: set[Session] = set()

    def check(self) -> None:
        """Terminates overdue runs. A run still active at the next call hangs, and its model is suspended until it ends.

        ONNX Runtime checks the termination flag between two nodes of the graph: a run stuck in a node cannot be
        terminated.
        """
        latest = time.monotonic() - self._max_seconds
        hung: set[Session] = set()
        for run in list(RUNS.values()):
            if run.began > latest or not run.session.bounded:
                continue
            if run.options.terminate:
                hung.add(run.session)
                continue
            run.options.terminate = True
            log.error("%s: a run exceeded --max-run-seconds %g and is terminated", run.session.path, self._max_seconds)
            with reporting("watchdog"):
                if run.session.owner is not None:
                    run.session.owner.overdue()
        for session in hung:
            with reporting("watchdog"):
                if session.owner is not None:
                    session.owner.suspend(latest)
        for session in self._hung - hung:
            with reporting("watchdog"):
                if session.owner is not None:
                    session.owner.resume()
        self._hung = hung


def exit_soon() -> threading.Event:
    """Terminates all runs, and exits the process with status 1 if it is still running after `EXIT_SECONDS`.

    Returns:
        An event that cancels the exit when it is set.
    """
    for run in list(RUNS.values()):
        run.options.terminate = True
    ended = threading.Event()
    start_thread("exit", _exit_unless, ended)
    return ended


def _exit_unless(ended: threading.Event) -> None:
    if ended.wait(EXIT_SECONDS):
        return
    try:
        log.error("a model run does not terminate; exiting without waiting for it")
    finally:
        os._exit(1)
