"""Traces that a collector receives from the real server."""

import time
from collections.abc import Iterator
from pathlib import Path

import grpc
import numpy as np
import pytest
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from calls.inference_requests import raw_request
from medserve_proto.inference import grpc_service_pb2 as pb
from medserve_proto.inference.grpc_service_pb2_grpc import GRPCInferenceServiceStub
from samples import onnx_models
from servers.otlp_collector import Collector, running_collector
from servers.server_process import Patch, refusal, running_server
from waiting import PATIENCE

TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
STAGES = ["decode", "queue", "compute", "encode"]
SERVICE = "inference.GRPCInferenceService"


def request(x: int = 1, rows: int = 1) -> pb.ModelInferRequest:
    return raw_request("lookup", np.full(rows, x), "INT64")


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    onnx_models.save(folder, "lookup", onnx_models.lookup())
    return folder


@pytest.fixture(scope="module")
def collected(models: Path, transport: str) -> tuple[Collector, int, int]:
    """A collector that received one call of each kind, and the start and end times of the calls."""
    began = time.time_ns()
    with running_collector() as collector:
        flags = ("--transport", transport, "--models", str(models), "--otlp-endpoint", collector.endpoint)
        with running_server(*flags) as server, grpc.insecure_channel(server.target) as channel:
            stub = GRPCInferenceServiceStub(channel)
            stub.ModelInfer(request(rows=3), metadata=(("traceparent", f"00-{TRACE}-{PARENT}-01"),), timeout=PATIENCE)
            stub.ModelInfer(request(), metadata=(("traceparent", f"00-{'a' * 32}-{PARENT}-00"),), timeout=PATIENCE)
            list(stub.ModelStreamInfer(iter([request(), request()]), metadata=(("traceparent", "nonsense"),)))
            for bad in (request(x=99), request(rows=5000)):
                with pytest.raises(grpc.RpcError):
                    stub.ModelInfer(bad, timeout=PATIENCE)
            stub.ServerLive(pb.ServerLiveRequest(), timeout=PATIENCE)
    return collector, began, time.time_ns()


def calls(collector: Collector) -> Iterator[tuple[Span, list[Span]]]:
    """Yields the span of each call with its child spans in chronological order."""
    for span in sorted(collector.spans, key=lambda span: span.start_time_unix_nano):
        if span.kind == Span.SPAN_KIND_SERVER:
            inside = [one for one in collector.spans if one.parent_span_id == span.span_id]
            yield span, sorted(inside, key=lambda one: STAGES.index(one.name))


def attributes(span: Span | Resource) -> dict[str, object]:
    return {
        one.key: getattr(one.value, kind)
        for one in span.attributes
        if (kind := one.value.WhichOneof("value")) is not None
    }


def test_span_of_a_call_has_the_callers_parent_and_its_stages(collected: tuple[Collector, int, int]) -> None:
    collector, began, ended = collected
    span, inside = next(calls(collector))
    assert span.name == f"{SERVICE}/ModelInfer"
    assert (span.trace_id.hex(), span.parent_span_id.hex()) == (TRACE, PARENT)
    assert attributes(span) == {
        "rpc.system": "grpc",
        "rpc.service": SERVICE,
        "rpc.method": "ModelInfer",
        "rpc.grpc.status_code": 0,
        "medserve.model": "lookup",
        "medserve.version": "1",
        "medserve.rows": 3,
        "medserve.of_stream": False,
    }
    assert [one.name for one in inside] == STAGES
    assert all(one.trace_id.hex() == TRACE for one in inside)
    times = [span.start_time_unix_nano, *(one.start_time_unix_nano for one in inside)]
    ends = [*(one.end_time_unix_nano for one in inside), span.end_time_unix_nano]
    # The stages follow each other without gaps.
    assert times[1:] == [times[0], *ends[:-2]]
    assert ends[-1] == ends[-2]
    assert began <= times[0] < ends[-1] <= ended


def test_unsampled_calls_are_not_traced(collected: tuple[Collector, int, int]) -> None:
    assert "a" * 32 not in {span.trace_id.hex() for span in collected[0].spans}


def test_each_request_of_a_stream_has_a_span(collected: tuple[Collector, int, int]) -> None:
    of_stream = [found for found in calls(collected[0]) if found[0].name == f"{SERVICE}/ModelStreamInfer"]
    assert sorted(attributes(span)["medserve.of_stream"] for span, _ in of_stream) == [False, True, True]  # type: ignore[type-var]
    for span, inside in of_stream:
        assert not span.parent_span_id, "an invalid traceparent is not a parent"
        assert [one.name for one in inside] == (STAGES if attributes(span)["medserve.of_stream"] else [])


def test_failed_call_ends_with_the_failed_stage(collected: tuple[Collector, int, int]) -> None:
    failed = {
        attributes(span)["rpc.grpc.status_code"]: (span, [one.name for one in inside])
        for span, inside in calls(collected[0])
        if attributes(span)["rpc.grpc.status_code"]
    }
    fault, stages = failed[grpc.StatusCode.INTERNAL.value[0]]
    assert fault.status.code == Status.STATUS_CODE_ERROR
    assert stages == STAGES  # the response was an error
    wrong, stages = failed[grpc.StatusCode.INVALID_ARGUMENT.value[0]]
    assert wrong.status.code == Status.STATUS_CODE_UNSET, "errors of the caller do not set the status"
    assert stages == ["decode"]


def test_call_without_a_model_has_no_stages(collected: tuple[Collector, int, int]) -> None:
    (found,) = [inside for span, inside in calls(collected[0]) if span.name == f"{SERVICE}/ServerLive"]
    assert not found


def test_unreachable_collector_does_not_delay_the_server(transport: str, models: Path, tmp_path: Path) -> None:
    log = tmp_path / "log"
    flags = ("--transport", transport, "--models", str(models), "--otlp-endpoint", "http://127.0.0.1:1")
    with running_server(*flags, log=log) as server, grpc.insecure_channel(server.target) as channel:
        assert GRPCInferenceServiceStub(channel).ModelInfer(request(), timeout=PATIENCE).outputs
    assert "all calls were answered" in log.read_text()


def test_missing_extra_is_reported(models: Path) -> None:
    flags = ("--models", str(models), "--transport", "grpcio", "--otlp-endpoint", "http://127.0.0.1:1")
    error = refusal(*flags, patch=("without_opentelemetry",))
    assert error.startswith("medserve-server: --otlp-endpoint needs the extra otel: pip install '.[otel]'")
    assert error.count("\n") == 1


@pytest.fixture
def variables(monkeypatch: pytest.MonkeyPatch) -> Iterator[Collector]:
    """A collector configured only by OpenTelemetry's environment variables."""
    with running_collector() as collector:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.endpoint)
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_INSECURE", "false")  # the scheme takes precedence over this
        monkeypatch.setenv("OTEL_SERVICE_NAME", "triage")
        yield collector


def call_once(*flags: str, log: Path | None = None, patch: Patch = ()) -> None:
    with running_server(*flags, log=log, patch=patch) as server, grpc.insecure_channel(server.target) as channel:
        GRPCInferenceServiceStub(channel).ServerLive(pb.ServerLiveRequest(), timeout=PATIENCE)


def test_opentelemetry_variables_are_used(variables: Collector, transport: str, models: Path) -> None:
    call_once("--transport", transport, "--models", str(models))
    assert variables.spans
    resources = [attributes(spans.resource) for request in variables.requests for spans in request.resource_spans]
    assert {resource["service.name"] for resource in resources} == {"triage"}


@pytest.mark.usefixtures("variables")
def test_inherited_variable_does_not_require_the_extra(models: Path, tmp_path: Path) -> None:
    log = tmp_path / "log"
    call_once("--transport", "grpcio", "--models", str(models), log=log, patch=("without_opentelemetry",))
    assert "no traces are sent to the address in OTEL_EXPORTER_OTLP_ENDPOINT" in log.read_text()
