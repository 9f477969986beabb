"""Thread pool for slow decoding and encoding: encoded images, large JSON bodies and explanations."""

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
    """A thread pool that estimates how long its queue will take.

    Args:
        threads: maximum number of functions that run concurrently.

    Raises:
        ThreadStartError: as `Pool`.
    """

    def __init__(self, threads: int) -> None:
        super().__init__(threads, thread_name_prefix="decode")
        self._concurrency = threads
        self._unfinished = 0
        self._began: dict[int, float] = {}  # start times of the running functions, by thread
        self._duration = UsualTime()
        self._lock = threading.Lock()  # guards the fields above

    def check(self, deadline: float | None) -> None:
        """Checks admission before a request is decoded.

        Args:
            deadline: on the clock of `time.monotonic`; None if there is no deadline.

        Raises:
            Overloaded: all threads are busy, and the request would most likely miss its deadline.
        """
        if deadline is not None and self._unfinished >= self._concurrency:
            check_wait("the decoding queue", self.estimate(), deadline - time.monotonic())

    def estimate(self) -> float:
        """Estimates the seconds until a function submitted now would return, from the average duration."""
        now = time.monotonic()
        with self._lock:
            usual = self._duration.seconds
            waiting = self._unfinished - len(self._began)
            busy = [max(0.0, began + usual - now) for began in self._began.values()]
            busy += [0.0] * (self._concurrency - len(busy))
        return start_seconds(busy, waiting, usual) + usual

    def submit(
        self, function: Callable[Arguments, Result], /, *args: Arguments.args, **kwargs: Arguments.kwargs
    ) -> Future[Result]:
        """Submits a function to the pool. It is not called if its future is cancelled before it starts.

        Exceptions other than ServingError are also reported, since a caller that was cancelled does not retrieve them.
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
                    self._duration.add(time.monotonic() - began)

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
