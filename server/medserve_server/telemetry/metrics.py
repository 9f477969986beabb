"""What Prometheus sees. Series are made from models that are loaded and methods that exist, never from requests."""

import platform
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.metadata import version
from types import TracebackType
from typing import Protocol, TypeVar, get_args

import grpc
from prometheus_client import CollectorRegistry, Counter, Gauge, ProcessCollector

from medserve_server.errors import STATUS, Limit, ServingError
from medserve_server.supervise import INTERNAL_ERRORS
from medserve_server.telemetry.histogram import FastHistogram

SECONDS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
ROWS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)
Family = TypeVar("Family", Counter, Gauge, FastHistogram)
APIS = ("image_classification", "patient_risk", "inference")


class Metrics:
    """All metric families of one server, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._of_models: list[Counter | Gauge | FastHistogram] = []
        model = ("model", "version")
        self.requests = self._counter("medserve_inference_requests_total", "Requests answered.", *model, "api", "code")
        self.rows = self._counter("medserve_inferences_total", "Rows (images, patients) computed.", *model)
        self.executions = self._counter("medserve_executions_total", "Runs of a model, of one batch each.", *model)
        self.request_seconds = self._histogram(
            "medserve_request_duration_seconds", "Time from a request's arrival to its answer.", SECONDS, *model, "api"
        )
        self.queue_seconds = self._histogram(
            "medserve_queue_duration_seconds", "Time that a request waited for its model.", SECONDS, *model
        )
        self.compute_seconds = self._histogram(
            "medserve_compute_duration_seconds", "Time that a run of a model took.", SECONDS, *model
        )
        self.reason_seconds = self._histogram(
            "medserve_reasons_duration_seconds",
            "Time from reading a request that asks for this reason, alone or with others, to its answer.",
            SECONDS,
            *model,
            "reason",
        )
        self.reason_rows = self._counter(
            "medserve_reason_rows_total", "Rows computed to explain others.", *model, "reason"
        )
        self.overdue_runs = self._counter(
            "medserve_overdue_runs_total", "Runs that took longer than --max-run-seconds.", *model
        )
        self.batch_rows = self._histogram("medserve_batch_size", "Rows of a run of a model.", ROWS, *model)
        self.pending = self._gauge("medserve_pending_requests", "Requests waiting for a model.", *model)
        self.inflight = self._gauge("medserve_inflight_requests", "Requests being answered.", *model)
        self.ready = self._gauge("medserve_model_ready", "1: the model takes requests; 0: it hangs.", *model)
        self.load_seconds = self._gauge(
            "medserve_model_load_duration_seconds", "Time that loading and warming the model took.", *model
        )
        self.model_refused = self._gauge(
            "medserve_model_refused", "1: the file that lies there now can't be served, see the log.", *model
        )
        self.load_failures = Counter(
            "medserve_model_load_failures_total", "Model files that were refused.", registry=self.registry
        )
        self.provider_refused = self._gauge(
            "medserve_provider_refused", "1: the model is not run on this provider, see the log.", *model, "provider"
        )
        self.session_info = self._gauge(
            "medserve_session_info", "How a model is run; always 1.", *model, "provider", "threads", "precision"
        )
        self.grpc_started = self._counter(
            "grpc_server_started_total", "Calls that started.", "grpc_type", "grpc_service", "grpc_method"
        )
        self.grpc_handled = self._counter(
            "grpc_server_handled_total", "Calls that ended.", "grpc_type", "grpc_service", "grpc_method", "grpc_code"
        )
        self.grpc_seconds = self._histogram(
            "grpc_server_handling_seconds",
            "Time that a call took.",
            SECONDS,
            "grpc_type",
            "grpc_service",
            "grpc_method",
        )
        refused = self._counter("medserve_refused_total", "Requests that a limit or a missing right refused.", "reason")
        self._refused = {limit: refused.labels(limit) for limit in get_args(Limit)}
        self.unread = Counter(
            "medserve_unread_total",
            "Calls that ended before their message had come: it was too large or too slow, or the client gave up.",
            registry=self.registry,
        )
        self.registry.register(INTERNAL_ERRORS)
        ProcessCollector(registry=self.registry)
        import onnxruntime  # noqa: PLC0415 - the supervisor of workers needs none

        build = self._gauge("medserve_build_info", "Versions; always 1.", "version", "onnxruntime", "python")
        build.labels(version("medserve"), onnxruntime.__version__, platform.python_version()).set(1)

    def refused(self, error: ServingError) -> None:
        """Notes an error, where it was a limit that caused it."""
        if error.limit is not None:
            self._refused[error.limit].inc()

    def forget(self, name: str, version: str) -> None:
        """Removes all series of a model that is served no more."""
        for family in self._of_models:
            family.remove_by_labels({"model": name, "version": version})

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return self._noted(Counter(name, text, labels, registry=self.registry), labels)

    def _gauge(self, name: str, text: str, *labels: str) -> Gauge:
        return self._noted(Gauge(name, text, labels, registry=self.registry), labels)

    def _histogram(self, name: str, text: str, buckets: tuple[float, ...], *labels: str) -> FastHistogram:
        return self._noted(FastHistogram(name, text, labels, self.registry, buckets), labels)

    def _noted(self, family: Family, labels: tuple[str, ...]) -> Family:
        if "model" in labels:
            self._of_models.append(family)
        return family


class MethodMetrics:
    """The series of one gRPC method, looked up once.

    Args:
        metrics: the families.
        kind: unary, client_stream, server_stream or bidi_stream.
        path: /service/method.
    """

    def __init__(self, metrics: Metrics, kind: str, path: str) -> None:
        self.path = path
        _, service, method = path.split("/")
        self._labels = (kind, service, method)
        self._started = metrics.grpc_started.labels(*self._labels)
        self._seconds = metrics.grpc_seconds.labels(*self._labels)
        self._metrics = metrics
        self._handled: dict[grpc.StatusCode, Counter] = {}

    def started(self) -> None:
        """Notes that a call began."""
        self._started.inc()

    def refused(self, error: ServingError) -> None:
        """Notes an error, where it was a limit that caused it."""
        self._metrics.refused(error)

    def ended(self, code: grpc.StatusCode, seconds: float) -> None:
        """Notes that a call ended."""
        if code not in self._handled:
            self._handled[code] = self._metrics.grpc_handled.labels(*self._labels, code.name)
        self._handled[code].inc()
        self._seconds.observe(seconds)


@dataclass(slots=True)
class Duration:
    """A number of occurrences and the time they took together."""

    count: int = 0
    seconds: float = 0.0

    def add(self, seconds: float, count: int = 1) -> None:
        """Counts `count` occurrences that took `seconds` together."""
        self.count += count
        self.seconds += seconds


@dataclass(slots=True)
class Statistics:
    """The sums that the Open Inference Protocol's ModelStatistics reports."""

    rows: int = 0
    executions: int = 0
    last_inference: float = 0.0
    """Seconds since 1970."""
    success: Duration = field(default_factory=Duration)
    fail: Duration = field(default_factory=Duration)
    queue: Duration = field(default_factory=Duration)
    compute: Duration = field(default_factory=Duration)
    by_batch_rows: dict[int, Duration] = field(default_factory=dict)


class Queue(Protocol):
    """What waits for a model."""

    suspended: bool
    """The model hangs."""

    def __len__(self) -> int: ...


class ModelMetrics:
    """The series of one loaded model, looked up once.

    Requests begin and end in the event loop alone; runs end in any thread.
    """

    def __init__(self, metrics: Metrics, name: str, version: str) -> None:
        self._labels = (name, version)
        self._metrics = metrics
        self.statistics = Statistics()
        self._lock = threading.Lock()
        self._inflight = 0
        self._rows = metrics.rows.labels(*self._labels)
        self._executions = metrics.executions.labels(*self._labels)
        self._queue_seconds = metrics.queue_seconds.labels(*self._labels)
        self._compute_seconds = metrics.compute_seconds.labels(*self._labels)
        self._batch_rows = metrics.batch_rows.labels(*self._labels)
        self._overdue_runs = metrics.overdue_runs.labels(*self._labels)
        self._requests: dict[tuple[str, grpc.StatusCode], Counter] = {}
        self._request_seconds = {api: metrics.request_seconds.labels(*self._labels, api) for api in APIS}

    @property
    def inflight(self) -> int:
        """Requests that began and have not ended."""
        return self._inflight

    def loaded(self, provider: str, threads: int, precision: str, seconds: float, queue: Queue) -> None:
        """Notes that the model is ready, how it runs, and what to ask for its state."""
        name, version = self._labels
        self._metrics.session_info.remove_by_labels({"model": name, "version": version})  # of what it replaces
        self._metrics.inflight.labels(*self._labels).set_function(lambda: self._inflight)
        self._metrics.session_info.labels(*self._labels, provider, str(threads), precision).set(1)
        self._metrics.load_seconds.labels(*self._labels).set(seconds)
        self._metrics.pending.labels(*self._labels).set_function(queue.__len__)
        self._metrics.ready.labels(*self._labels).set_function(lambda: float(not queue.suspended))

    def overdue(self) -> None:
        """Notes a run that took too long."""
        self._overdue_runs.inc()

    def executed(self, rows: int, waits: list[float], seconds: float) -> None:
        """Notes a run of the model: its rows, how long each of its requests had waited, how long it took."""
        self._rows.inc(rows)
        self._executions.inc()
        statistics = self.statistics
        with self._lock:
            self._batch_rows.observe(rows)
            self._compute_seconds.observe(seconds)
            for wait in waits:
                self._queue_seconds.observe(wait)
            statistics.rows += rows
            statistics.executions += 1
            statistics.last_inference = time.time()
            statistics.queue.add(sum(waits), len(waits))
            statistics.compute.add(seconds * len(waits), len(waits))
            statistics.by_batch_rows.setdefault(rows, Duration()).add(seconds)

    def explained(self, kinds: Mapping[str, int], seconds: float) -> None:
        """Notes an answer with reasons: their kinds, the rows that each added, how long the answer took."""
        for kind, rows in kinds.items():
            self._metrics.reason_rows.labels(*self._labels, kind).inc(rows)
            with self._lock:
                self._metrics.reason_seconds.labels(*self._labels, kind).observe(seconds)

    def request(self, api: str) -> "RequestTimer":
        """Begins a request: it is in flight until its timer ends, in a `with` or by `end`."""
        self._inflight += 1
        return RequestTimer(self, api)

    def answered(self, api: str, code: grpc.StatusCode, seconds: float) -> None:
        """Notes the end of a request."""
        key = api, code
        if key not in self._requests:
            self._requests[key] = self._metrics.requests.labels(*self._labels, api, code.name)
        self._requests[key].inc()
        self._request_seconds[api].observe(seconds)
        (self.statistics.success if code is grpc.StatusCode.OK else self.statistics.fail).add(seconds)
        self._inflight -= 1  # last: without requests, the model may be closed and its series be removed


class RequestTimer:
    """Times one request and notes how it ended."""

    __slots__ = ("_api", "_metrics", "_started")

    def __init__(self, metrics: ModelMetrics, api: str) -> None:
        self._metrics = metrics
        self._api = api
        self._started = time.monotonic()

    def end(self, code: grpc.StatusCode) -> None:
        """Notes that the request ended, with this status."""
        self._metrics.answered(self._api, code, time.monotonic() - self._started)

    def __enter__(self) -> None:
        """Nothing is left to begin."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.end(status_of(error))


def status_of(error: BaseException | None) -> grpc.StatusCode:
    """The status with which a call ends that raised this."""
    if error is None:
        return grpc.StatusCode.OK
    if isinstance(error, ServingError):
        return STATUS[type(error)]
    # asyncio's CancelledError and GeneratorExit: the client left; anything else is a bug.
    return grpc.StatusCode.INTERNAL if isinstance(error, Exception) else grpc.StatusCode.CANCELLED
