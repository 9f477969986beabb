"""Runs that take too long: each is told to end, and nobody waits for one that does not."""

import logging
import os
import threading
import time

from medserve_server.engine.session import RUNS, Session
from medserve_server.supervise import reporting, start_thread

log = logging.getLogger(__name__)

POLL_INTERVAL = 0.5
# What runs get to end when the server does, before it ends without them.
EXIT_SECONDS = 5.0


class Watchdog:
    """Looks at the runs of this process, those of models that are being loaded too.

    Args:
        max_seconds: that a run may take.
    """

    def __init__(self, max_seconds: float) -> None:
        self._max_seconds = max_seconds
        self._hung: set[Session] = set()

    def look(self) -> None:
        """Ends what is overdue. What has not ended by the next look hangs, and its model is suspended until it does.

        ONNX Runtime looks at its orders between two nodes of the graph: a run that is stuck in one can't be ended.
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
            log.error("%s: a run took more than --max-run-seconds %g: it is ended", run.session.path, self._max_seconds)
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
    """Tells all runs to end, and ends the process with status 1 if it is still there after `EXIT_SECONDS`.

    Returns:
        What to set where nothing hangs.
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
        log.error("a run of a model does not end; the server ends without it")
    finally:
        os._exit(1)
