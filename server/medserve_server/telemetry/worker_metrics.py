"""Aggregates the metrics of several workers into those of one server."""

import threading
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from multiprocessing.connection import Connection

from prometheus_client import Metric, ProcessCollector
from prometheus_client.registry import Collector

from medserve_server.supervise import INTERNAL_ERRORS, start_thread

# Gauges that are summed over the workers; for all other gauges, the maximum is reported.
SUMMED_GAUGES = {
    "medserve_pending_requests",
    "medserve_inflight_requests",
    "process_virtual_memory_bytes",
    "process_resident_memory_bytes",
    "process_open_fds",
    "process_max_fds",
}
# Time in seconds that workers have to respond; for one that does not, the last known values are reported.
RESPONSE_TIMEOUT = 1.0


class Link:
    """Connection to a worker, which sends its metrics and readiness through `pipe` on request; keeps the last one."""

    def __init__(self, pipe: Connection) -> None:
        self.metrics: list[Metric] = []
        self.why_not_ready = ""  # a worker is ready when its link is created
        self.answered = threading.Event()
        self.answered.set()
        self._pipe = pipe
        self._thread = start_thread("worker metrics", self._listen, restart=True)

    def ask(self) -> None:
        """Requests the metrics, unless a response is still pending."""
        if self.answered.is_set():
            self.answered.clear()
            with suppress(OSError):  # the worker has exited
                self._pipe.send(None)

    def join(self) -> None:
        """Waits for the last response of a worker that has exited."""
        self._thread.join()

    def _listen(self) -> None:
        # In a separate thread, since a worker can hang in the middle of a response.
        try:
            while True:
                self.metrics, self.why_not_ready = self._pipe.recv()
                self.answered.set()
        except (EOFError, OSError):
            return
        finally:
            self.answered.set()  # no response will follow


class WorkerMetrics(Collector):
    """Collects metrics from all workers on each scrape; the counters of workers that exited are retained."""

    def __init__(self) -> None:
        self._asking = threading.Lock()
        self._changing = threading.Lock()
        self._links: list[Link] = []
        self._gone: list[Metric] = []
        self._supervisor = ProcessCollector(registry=None)

    def add(self, pipe: Connection) -> Link:
        """Adds a worker."""
        link = Link(pipe)
        with self._changing:
            self._links.append(link)
        return link

    def remove(self, link: Link) -> None:
        """Removes a worker that has exited: its counters are retained, its gauges are dropped."""
        link.join()
        with self._changing:
            self._links.remove(link)
            self._gone = total([self._gone, [family for family in link.metrics if family.type != "gauge"]])

    def why_not_ready(self) -> list[str]:
        """Returns for each running worker the last reported reason why it is not ready; empty if it is ready."""
        return [link.why_not_ready for link in list(self._links)]

    def collect(self) -> list[Metric]:
        """Returns the metrics aggregated over the supervisor, all running workers and all workers that have exited."""
        with self._asking:
            links = list(self._links)
            for link in links:
                link.ask()
            deadline = time.monotonic() + RESPONSE_TIMEOUT
            for link in links:
                link.answered.wait(deadline - time.monotonic())
        with self._changing:
            own = [self._supervisor.collect(), INTERNAL_ERRORS.collect()]
            return total([self._gone, *own, *(link.metrics for link in self._links)])


def total(parts: Iterable[Iterable[Metric]]) -> list[Metric]:
    """Merges families with the same name, and aggregates samples with the same labels."""
    families: dict[str, Metric] = {}
    values: dict[str, dict[tuple[str, tuple[tuple[str, str], ...]], float]] = {}
    for family in (family for part in parts for family in part):
        families.setdefault(family.name, Metric(family.name, family.documentation, family.type))
        sums = values.setdefault(family.name, {})
        for sample in family.samples:
            key = sample.name, tuple(sample.labels.items())
            sums[key] = _aggregation(family, sample.name)((sums[key], sample.value)) if key in sums else sample.value
    for name, family in families.items():
        for (sample_name, labels), value in values[name].items():
            family.add_sample(sample_name, dict(labels), value)
    return list(families.values())


def _aggregation(family: Metric, sample_name: str) -> Callable[[Iterable[float]], float]:
    """Returns the function that aggregates the values of several processes."""
    if sample_name.endswith(("_created", "_start_time_seconds")):
        return min
    return sum if family.type != "gauge" or family.name in SUMMED_GAUGES else max
