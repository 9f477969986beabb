"""Threads for what takes long to read or to answer: encoded pictures, and reasons."""

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import ParamSpec, TypeVar

from medserve_server.admission import UsualTime, check_wait

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


class Decoders(ThreadPoolExecutor):
    """An executor that knows how long what waits for it is likely to take.

    Args:
        threads: how many functions run at once.
    """

    def __init__(self, threads: int) -> None:
        super().__init__(threads, thread_name_prefix="decode")
        self._at_once = threads
        self._unfinished = 0
        self._usual = UsualTime()
        self._lock = threading.Lock()  # guards both

    def check(self, deadline: float | None) -> None:
        """Refuses a request while it is still unread.

        Args:
            deadline: on the clock of `time.monotonic`; None: there is none.

        Raises:
            Overloaded: all threads are busy, and it would most likely miss its deadline.
        """
        if deadline is not None and self._unfinished >= self._at_once:
            wait = (self._unfinished + 1) * self._usual.seconds / self._at_once
            check_wait("what waits to be read", wait, deadline - time.monotonic())

    def submit(
        self, function: Callable[Arguments, Result], /, *args: Arguments.args, **kwargs: Arguments.kwargs
    ) -> Future[Result]:
        """Has a thread call the function; where its future is cancelled before, no thread does."""

        def timed() -> Result:
            began = time.monotonic()
            try:
                return function(*args, **kwargs)
            finally:
                with self._lock:
                    self._usual.add(time.monotonic() - began)

        future = super().submit(timed)
        with self._lock:
            self._unfinished += 1
        future.add_done_callback(self._finished)
        return future

    def _finished(self, _: Future[Result]) -> None:
        with self._lock:
            self._unfinished -= 1
