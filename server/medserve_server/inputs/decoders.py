"""Threads for what takes long to read or to answer: encoded pictures, large JSON, and reasons."""

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import ParamSpec, TypeVar

from medserve_server.admission import UsualTime, check_wait, start_seconds
from medserve_server.errors import ServingError
from medserve_server.supervise import Pool, report

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


class Decoders(Pool):
    """An executor that knows how long what waits for it is likely to take.

    Args:
        threads: how many functions run at once.

    Raises:
        ThreadStartError: as `Pool`.
    """

    def __init__(self, threads: int) -> None:
        super().__init__(threads, thread_name_prefix="decode")
        self._at_once = threads
        self._unfinished = 0
        self._began: dict[int, float] = {}  # by thread, of those that are at work
        self._usual = UsualTime()
        self._lock = threading.Lock()  # guards these

    def check(self, deadline: float | None) -> None:
        """Refuses a request while it is still unread.

        Args:
            deadline: on the clock of `time.monotonic`; None: there is none.

        Raises:
            Overloaded: all threads are busy, and it would most likely miss its deadline.
        """
        if deadline is not None and self._unfinished >= self._at_once:
            check_wait("what waits to be read", self.estimate(), deadline - time.monotonic())

    def estimate(self) -> float:
        """Seconds until a function would have returned that is submitted now, if each takes its usual time."""
        now = time.monotonic()
        with self._lock:
            usual = self._usual.seconds
            waiting = self._unfinished - len(self._began)
            busy = [max(0.0, began + usual - now) for began in self._began.values()]
            busy += [0.0] * (self._at_once - len(busy))
        return start_seconds(busy, waiting, usual) + usual

    def submit(
        self, function: Callable[Arguments, Result], /, *args: Arguments.args, **kwargs: Arguments.kwargs
    ) -> Future[Result]:
        """Has a thread call the function; where its future is cancelled before, no thread does.

        What it raises is reported, unless it is a ServingError: a caller that has left does not ask for it.
        """

        def timed() -> Result:
            began = time.monotonic()
            thread = threading.get_ident()
            with self._lock:
                self._began[thread] = began
            try:
                return function(*args, **kwargs)
            except ServingError:
                raise
            except Exception as error:
                report("decoder", error)
                raise
            finally:
                with self._lock:
                    del self._began[thread]
                    self._usual.add(time.monotonic() - began)

        with self._lock:
            self._unfinished += 1
        try:
            future = super().submit(timed)
        except RuntimeError:  # the pool was shut down
            self._finished()
            raise
        future.add_done_callback(self._finished)
        return future

    def _finished(self, _: object = None) -> None:
        with self._lock:
            self._unfinished -= 1
