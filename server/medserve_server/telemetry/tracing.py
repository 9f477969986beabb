"""OpenTelemetry tracing: a span for each call and each request of a stream, with child spans for its stages."""

import threading
import time
from importlib.metadata import version

import grpc

from medserve_server.supervise import start_thread
from medserve_server.telemetry.call_record import CallRecord

try:
    from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import OTELResourceDetector, Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor
    from opentelemetry.trace import SpanKind, Status, StatusCode, set_span_in_context
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        "--otlp-endpoint needs the extra otel: "
        "pip install '.[otel]' in a checkout of medserve, or 'FILE.whl[otel]' with its wheel"
    ) from error

# Maximum time in seconds to wait for the collector at shutdown.
SHUTDOWN_TIMEOUT = 3.0
# Status codes that the semantic conventions define as errors for server spans.
# https://opentelemetry.io/docs/specs/semconv/rpc/grpc/
SERVER_ERRORS = {
    grpc.StatusCode.UNKNOWN,
    grpc.StatusCode.DEADLINE_EXCEEDED,
    grpc.StatusCode.UNIMPLEMENTED,
    grpc.StatusCode.INTERNAL,
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.DATA_LOSS,
}


class Tracer:
    """Exports spans to a collector from a background thread; spans are dropped if its queue is full.

    The sampler is set by OTEL_TRACES_SAMPLER; the default samples all calls unless the parent span is not sampled.

    Args:
        endpoint: OTLP/gRPC endpoint of the collector; https:// uses TLS, http:// does not.
    """

    def __init__(self, endpoint: str) -> None:
        named = OTELResourceDetector().detect().attributes  # OTEL_SERVICE_NAME, OTEL_RESOURCE_ATTRIBUTES
        resource = Resource.create({"service.name": "medserve", "service.version": version("medserve"), **named})
        self._provider = TracerProvider(resource=resource, shutdown_on_exit=False)
        self._exporter = OTLPSpanExporter(endpoint=endpoint, insecure=endpoint.startswith("http://"))
        self._provider.add_span_processor(BatchSpanProcessor(self._exporter))
        self._tracer = self._provider.get_tracer("medserve_server")
        self._propagator = TraceContextTextMapPropagator()

    def trace(self, record: CallRecord) -> None:
        """Creates the spans of a finished call or request from its recorded times."""
        since_epoch = time.time_ns() - round(time.monotonic() * 1e9)

        def instant(seconds: float) -> int:
            return since_epoch + round(seconds * 1e9)

        _, service, method = record.method.split("/")
        span = self._tracer.start_span(
            f"{service}/{method}",
            self._propagator.extract({"traceparent": record.traceparent}),
            SpanKind.SERVER,
            {
                "rpc.system": "grpc",
                "rpc.service": service,
                "rpc.method": method,
                "rpc.grpc.status_code": record.code.value[0],
                "medserve.model": record.model,
                "medserve.version": record.version,
                "medserve.rows": record.rows,
                "medserve.of_stream": record.of_stream,
            },
            start_time=instant(record.began),
        )
        if span.is_recording():
            inside = set_span_in_context(span)
            for name, start, end in record.stages():
                self._tracer.start_span(name, inside, start_time=instant(start)).end(instant(end))
            if record.code in SERVER_ERRORS:
                span.set_status(Status(StatusCode.ERROR))
        span.end(instant(record.ended))

    def close(self) -> None:
        """Exports the remaining spans."""
        ended = threading.Event()
        start_thread("tracing", self._abort_exporter_unless, ended)
        self._provider.shutdown()
        ended.set()

    def _abort_exporter_unless(self, ended: threading.Event) -> None:
        if not ended.wait(SHUTDOWN_TIMEOUT):
            self._exporter.shutdown()
