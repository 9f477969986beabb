"""The metrics of several workers, added up as those of one server."""

import threading
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from multiprocessing.connection import Connection

from prometheus_client import Metric, ProcessCollector
from prometheus_client.registry import Collector

from medserve_server.supervise import INTERNAL_ERRORS, start_thread

# Gauges of which each worker has a share. Of all others the workers have the same, and the largest is shown.
SHARES = {
    "medserve_pending_requests",
    "medserve_inflight_requests",
    "process_virtual_memory_bytes",
    "process_resident_memory_bytes",
    "process_open_fds",
    "process_max_fds",
}
# Seconds that workers get to answer; one that hangs is shown as it last was.
PATIENCE = 1.0


class Link:
    """A worker that answers whatever comes through `pipe` with its metrics and readiness, and what it told last."""

    def __init__(self, pipe: Connection) -> None:
        self.metrics: list[Metric] = []
        self.why_not_ready = ""  # it is ready when it is linked
        self.answered = threading.Event()
        self.answered.set()
        self._pipe = pipe
        self._thread = start_thread("worker metrics", self._listen, restart=True)

    def ask(self) -> None:
        """Asks for the metrics, unless an answer is still owed."""
        if self.answered.is_set():
            self.answered.clear()
            with suppress(OSError):  # it has ended
                self._pipe.send(None)

    def join(self) -> None:
        """Waits for the last word of a worker that has ended."""
        self._thread.join()

    def _listen(self) -> None:
        # In a thread of its own: a worker can hang in the middle of an answer.
        try:
            while True:
                self.metrics, self.why_not_ready = self._pipe.recv()
                self.answered.set()
        except (EOFError, OSError):
            return
        finally:
            self.answered.set()  # an answer that can't be read is not waited for


class WorkerMetrics(Collector):
    """Asks the workers whenever it is asked itself, and never forgets what a worker has counted that is gone."""

    def __init__(self) -> None:
        self._asking = threading.Lock()
        self._changing = threading.Lock()
        self._links: list[Link] = []
        self._gone: list[Metric] = []
        self._supervisor = ProcessCollector(registry=None)

    def add(self, pipe: Connection) -> Link:
        """Counts a worker in."""
        link = Link(pipe)
        with self._changing:
            self._links.append(link)
        return link

    def remove(self, link: Link) -> None:
        """Counts a worker out that has ended: its counters stay, its gauges go."""
        link.join()
        with self._changing:
            self._links.remove(link)
            self._gone = total([self._gone, [family for family in link.metrics if family.type != "gauge"]])

    def why_not_ready(self) -> list[str]:
        """What each worker that lives told last: a line, or nothing where it takes work."""
        return [link.why_not_ready for link in list(self._links)]

    def collect(self) -> list[Metric]:
        """The sum over the supervisor, all workers that live and all that are gone."""
        with self._asking:
            links = list(self._links)
            for link in links:
                link.ask()
            deadline = time.monotonic() + PATIENCE
            for link in links:
                link.answered.wait(deadline - time.monotonic())
        with self._changing:
            own = [self._supervisor.collect(), INTERNAL_ERRORS.collect()]
            return total([self._gone, *own, *(link.metrics for link in self._links)])


def total(parts: Iterable[Iterable[Metric]]) -> list[Metric]:
    """Makes one family of those with the same name, and one sample of those with the same labels."""
    families: dict[str, Metric] = {}
    values: dict[str, dict[tuple[str, tuple[tuple[str, str], ...]], float]] = {}
    for family in (family for part in parts for family in part):
        families.setdefault(family.name, Metric(family.name, family.documentation, family.type))
        sums = values.setdefault(family.name, {})
        for sample in family.samples:
            key = sample.name, tuple(sample.labels.items())
            sums[key] = _rule(family, sample.name)((sums[key], sample.value)) if key in sums else sample.value
    for name, family in families.items():
        for (sample_name, labels), value in values[name].items():
            family.add_sample(sample_name, dict(labels), value)
    return list(families.values())


def _rule(family: Metric, sample_name: str) -> Callable[[Iterable[float]], float]:
    """How the values of two processes become one."""
    if sample_name.endswith(("_created", "_start_time_seconds")):
        return min
    return sum if family.type != "gauge" or family.name in SHARES else max
