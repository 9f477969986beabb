"""Prometheus metrics. Label values come from loaded models and existing methods, never from requests."""

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
APIS = ("image_classification", "image_segmentation", "patient_risk", "inference")


class Metrics:
    """All metric families of one server, in a separate registry."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._model_families: list[Counter | Gauge | FastHistogram] = []
        model = ("model", "version")
        self.requests = self._counter("medserve_inference_requests_total", "Completed requests.", *model, "api", "code")
        self.rows = self._counter("medserve_inferences_total", "Rows (images, patients) computed.", *model)
        self.executions = self._counter("medserve_executions_total", "Model runs; each processes one batch.", *model)
        self.request_seconds = self._histogram(
            "medserve_request_duration_seconds",
            "Time from receiving a request to completing its response.",
            SECONDS,
            *model,
            "api",
        )
        self.queue_seconds = self._histogram(
            "medserve_queue_duration_seconds", "Time that a request was queued for its model.", SECONDS, *model
        )
        self.compute_seconds = self._histogram(
            "medserve_compute_duration_seconds", "Duration of a model run.", SECONDS, *model
        )
        self.reason_seconds = self._histogram(
            "medserve_reasons_duration_seconds",
            "Time from decoding a request with this reason, possibly among others, to completing its response.",
            SECONDS,
            *model,
            "reason",
        )
        self.reason_rows = self._counter("medserve_reason_rows_total", "Rows computed for reasons.", *model, "reason")
        self.tiles = self._counter("medserve_segmented_tiles_total", "Tiles of segmented images.", *model)
        self.objects = self._counter("medserve_segmented_objects_total", "Objects found in images.", *model)
        self.overdue_runs = self._counter(
            "medserve_overdue_runs_total", "Model runs that exceeded --max-run-seconds.", *model
        )
        self.batch_rows = self._histogram("medserve_batch_size", "Rows per model run.", ROWS, *model)
        self.pending = self._gauge("medserve_pending_requests", "Requests queued for a model.", *model)
        self.inflight = self._gauge("medserve_inflight_requests", "Requests in progress.", *model)
        self.ready = self._gauge("medserve_model_ready", "1 if the model accepts requests, 0 if it hangs.", *model)
        self.load_seconds = self._gauge(
            "medserve_model_load_duration_seconds", "Time to load and warm up the model.", *model
        )
        self.model_refused = self._gauge(
            "medserve_model_refused", "1 if the current file of the model is refused; see the log.", *model
        )
        self.load_failures = Counter(
            "medserve_model_load_failures_total", "Model files that were refused.", registry=self.registry
        )
        self.provider_refused = self._gauge(
            "medserve_provider_refused",
            "1 if this provider was refused for the model; see the log.",
            *model,
            "provider",
        )
        self.session_info = self._gauge(
            "medserve_session_info",
            "Execution provider, threads and precision of a model; always 1.",
            *model,
            "provider",
            "threads",
            "precision",
        )
        self.grpc_started = self._counter(
            "grpc_server_started_total", "Calls started.", "grpc_type", "grpc_service", "grpc_method"
        )
        self.grpc_handled = self._counter(
            "grpc_server_handled_total", "Calls completed.", "grpc_type", "grpc_service", "grpc_method", "grpc_code"
        )
        self.grpc_seconds = self._histogram(
            "grpc_server_handling_seconds",
            "Duration of a call.",
            SECONDS,
            "grpc_type",
            "grpc_service",
            "grpc_method",
        )
        self.refusals = self._counter(
            "medserve_refused_total", "Requests refused by a limit or for lack of permission.", "reason"
        )
        self._refused = {limit: self.refusals.labels(limit) for limit in get_args(Limit)}
        self.unread = Counter(
            "medserve_unread_total",
            "Calls that ended before their message was received: too large, too slow, or cancelled by the client.",
            registry=self.registry,
        )
        self.registry.register(INTERNAL_ERRORS)
        ProcessCollector(registry=self.registry)
        import onnxruntime  # noqa: PLC0415 - the supervisor of workers does not need it

        self.build = self._gauge("medserve_build_info", "Versions; always 1.", "version", "onnxruntime", "python")
        self.build.labels(version("medserve"), onnxruntime.__version__, platform.python_version()).set(1)

    def refused(self, error: ServingError) -> None:
        """Counts an error if it was caused by a limit."""
        if error.limit is not None:
            self._refused[error.limit].inc()

    def forget(self, name: str, version: str) -> None:
        """Removes all series of a model that is no longer served."""
        for family in self._model_families:
            family.remove_by_labels({"model": name, "version": version})

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return self._registered(Counter(name, text, labels, registry=self.registry), labels)

    def _gauge(self, name: str, text: str, *labels: str) -> Gauge:
        return self._registered(Gauge(name, text, labels, registry=self.registry), labels)

    def _histogram(self, name: str, text: str, buckets: tuple[float, ...], *labels: str) -> FastHistogram:
        return self._registered(FastHistogram(name, text, labels, self.registry, buckets), labels)

    def _registered(self, family: Family, labels: tuple[str, ...]) -> Family:
        if "model" in labels:
            self._model_families.append(family)
        return family


class MethodMetrics:
    """The metric series of one gRPC method, looked up once.

    Args:
        metrics: the metric families.
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
        """Counts the start of a call."""
        self._started.inc()

    def refused(self, error: ServingError) -> None:
        """Counts an error if it was caused by a limit."""
        self._metrics.refused(error)

    def ended(self, code: grpc.StatusCode, seconds: float) -> None:
        """Counts the end of a call and observes its duration."""
        if code not in self._handled:
            self._handled[code] = self._metrics.grpc_handled.labels(*self._labels, code.name)
        self._handled[code].inc()
        self._seconds.observe(seconds)


@dataclass(slots=True)
class Duration:
    """A number of occurrences and their total duration."""

    count: int = 0
    seconds: float = 0.0

    def add(self, seconds: float, count: int = 1) -> None:
        """Adds `count` occurrences with a total duration of `seconds`."""
        self.count += count
        self.seconds += seconds


@dataclass(slots=True)
class Statistics:
    """The totals reported by ModelStatistics of the Open Inference Protocol."""

    rows: int = 0
    executions: int = 0
    last_inference: float = 0.0
    """Unix time in seconds."""
    success: Duration = field(default_factory=Duration)
    fail: Duration = field(default_factory=Duration)
    queue: Duration = field(default_factory=Duration)
    compute: Duration = field(default_factory=Duration)
    by_batch_rows: dict[int, Duration] = field(default_factory=dict)


class Queue(Protocol):
    """The request queue of a model."""

    suspended: bool
    """Whether the model is suspended because a run hangs."""

    def __len__(self) -> int: ...


class ModelMetrics:
    """The metric series of one loaded model, looked up once.

    Requests start and end in the event loop only; runs may end in any thread.
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
        """Number of requests in progress."""
        return self._inflight

    def loaded(self, provider: str, threads: int, precision: str, seconds: float, queue: Queue) -> None:
        """Records that the model is loaded and how it is run, and exports the state of its queue."""
        name, version = self._labels
        self._metrics.session_info.remove_by_labels({"model": name, "version": version})  # of the model it replaces
        self._metrics.inflight.labels(*self._labels).set_function(lambda: self._inflight)
        self._metrics.session_info.labels(*self._labels, provider, str(threads), precision).set(1)
        self._metrics.load_seconds.labels(*self._labels).set(seconds)
        self._metrics.pending.labels(*self._labels).set_function(queue.__len__)
        self._metrics.ready.labels(*self._labels).set_function(lambda: float(not queue.suspended))

    def overdue(self) -> None:
        """Counts a run that exceeded the time limit."""
        self._overdue_runs.inc()

    def executed(self, rows: int, waits: list[float], seconds: float) -> None:
        """Records a model run: its rows, the queueing time of each request, and its duration, in seconds."""
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
        """Records a response with reasons: the rows added by each kind, and the duration in seconds."""
        for kind, rows in kinds.items():
            self._metrics.reason_rows.labels(*self._labels, kind).inc(rows)
            with self._lock:
                self._metrics.reason_seconds.labels(*self._labels, kind).observe(seconds)

    def segmented(self, tiles: int, objects: int) -> None:
        """Records a response of a segmentation model: the tiles of its images, and the objects found in them."""
        self._metrics.tiles.labels(*self._labels).inc(tiles)
        self._metrics.objects.labels(*self._labels).inc(objects)

    def request(self, api: str) -> "RequestTimer":
        """Starts a request, which is in progress until the returned timer ends, in a `with` statement or by `end`."""
        self._inflight += 1
        return RequestTimer(self, api)

    def answered(self, api: str, code: grpc.StatusCode, seconds: float) -> None:
        """Records the end of a request."""
        key = api, code
        if key not in self._requests:
            self._requests[key] = self._metrics.requests.labels(*self._labels, api, code.name)
        self._requests[key].inc()
        self._request_seconds[api].observe(seconds)
        (self.statistics.success if code is grpc.StatusCode.OK else self.statistics.fail).add(seconds)
        self._inflight -= 1  # last, since without requests the model may be closed and its series removed


class RequestTimer:
    """Measures the duration of one request and records its status."""

    __slots__ = ("_api", "_metrics", "_started")

    def __init__(self, metrics: ModelMetrics, api: str) -> None:
        self._metrics = metrics
        self._api = api
        self._started = time.monotonic()

    def end(self, code: grpc.StatusCode) -> None:
        """Records that the request ended with this status."""
        self._metrics.answered(self._api, code, time.monotonic() - self._started)

    def __enter__(self) -> None:
        """Does nothing: the timer is already running."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.end(status_of(error))


def status_of(error: BaseException | None) -> grpc.StatusCode:
    """Returns the status of a call that ended with this exception, or with none."""
    if error is None:
        return grpc.StatusCode.OK
    if isinstance(error, ServingError):
        return STATUS[type(error)]
    # CancelledError and GeneratorExit mean that the client cancelled; any other exception is a bug.
    return grpc.StatusCode.INTERNAL if isinstance(error, Exception) else grpc.StatusCode.CANCELLED
