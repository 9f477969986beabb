"""The metrics served on /metrics."""

from typing import Any
from urllib.request import urlopen

import grpc
import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families

from medserve_proto.inference import grpc_service_pb2 as pb
from medserve_proto.inference.grpc_service_pb2_grpc import GRPCInferenceServiceStub
from servers.server_process import ServerProcess, running_server
from waiting import PATIENCE

FAMILIES = {
    "medserve_inference_requests": "counter",
    "medserve_inferences": "counter",
    "medserve_executions": "counter",
    "medserve_request_duration_seconds": "histogram",
    "medserve_queue_duration_seconds": "histogram",
    "medserve_compute_duration_seconds": "histogram",
    "medserve_batch_size": "histogram",
    "medserve_reasons_duration_seconds": "histogram",
    "medserve_reason_rows": "counter",
    "medserve_pending_requests": "gauge",
    "medserve_inflight_requests": "gauge",
    "medserve_model_ready": "gauge",
    "medserve_model_load_duration_seconds": "gauge",
    "medserve_model_load_failures": "counter",
    "medserve_model_refused": "gauge",
    "medserve_session_info": "gauge",
    "medserve_build_info": "gauge",
    "grpc_server_started": "counter",
    "grpc_server_handled": "counter",
    "grpc_server_handling_seconds": "histogram",
}


def infer(stub: GRPCInferenceServiceStub, model: str, rows: int) -> grpc.StatusCode:
    tensor = pb.ModelInferRequest.InferInputTensor(name="x", datatype="FP32", shape=[rows, 3])
    payload = np.zeros((rows, 3), np.float32).tobytes()
    call = stub.ModelInfer.future(pb.ModelInferRequest(model_name=model, inputs=[tensor], raw_input_contents=[payload]))
    code: grpc.StatusCode = call.code()
    return code


def samples(server: ServerProcess) -> dict[str, float]:
    """Returns the value of each series by name and labels, e.g. name{label=value}."""
    return {
        f"{sample.name}{{{','.join(f'{key}={value}' for key, value in sorted(sample.labels.items()))}}}": sample.value
        for family in text_string_to_metric_families(server.metrics())
        for sample in family.samples
    }


def test_requests_rows_and_runs_are_counted(zoo: ServerProcess, zoo_channel: grpc.Channel) -> None:
    stub = GRPCInferenceServiceStub(zoo_channel)
    model = "{model=identity-fp32,version=1}"
    request = "medserve_inference_requests_total{api=inference,code=%s,model=identity-fp32,version=1}"
    before = samples(zoo)
    assert infer(stub, "identity-fp32", 5) is grpc.StatusCode.OK
    assert infer(stub, "identity-fp32", 0) is grpc.StatusCode.INVALID_ARGUMENT
    after = samples(zoo)

    def rise(name: str) -> float:
        return after[name] - before.get(name, 0)

    assert rise(f"medserve_inferences_total{model}") == 5
    assert rise(f"medserve_executions_total{model}") == 1
    assert rise(f"medserve_batch_size_sum{model}") == 5
    assert rise(f"medserve_queue_duration_seconds_count{model}") == 1
    assert rise(f"medserve_compute_duration_seconds_count{model}") == 1
    assert rise(request % "OK") == 1
    assert rise(request % "INVALID_ARGUMENT") == 1
    assert after[f"medserve_inflight_requests{model}"] == 0
    assert after[f"medserve_pending_requests{model}"] == 0
    assert after[f"medserve_model_ready{model}"] == 1
    call = "grpc_method=ModelInfer,grpc_service=inference.GRPCInferenceService,grpc_type=unary"
    assert rise(f"grpc_server_started_total{{{call}}}") == 2
    assert rise(f"grpc_server_handled_total{{grpc_code=INVALID_ARGUMENT,{call}}}") == 1
    assert rise(f"grpc_server_handling_seconds_count{{{call}}}") == 2


def test_requests_cannot_create_series(zoo: ServerProcess, zoo_channel: grpc.Channel) -> None:
    stub = GRPCInferenceServiceStub(zoo_channel)
    for number in range(20):
        assert infer(stub, f"invented-{number}", 1) is grpc.StatusCode.NOT_FOUND
    unknown: Any = zoo_channel.unary_unary("/invented.Service/Method")
    with pytest.raises(grpc.RpcError):
        unknown(b"")
    assert "invented" not in zoo.metrics()


def test_metrics_have_type_and_help_text(zoo: ServerProcess) -> None:
    families = {family.name: family for family in text_string_to_metric_families(zoo.metrics())}
    assert {name: families[name].type for name in FAMILIES} == FAMILIES
    assert all(families[name].documentation.endswith((".", "1.")) for name in FAMILIES)


def test_duration_buckets_range_from_100_microseconds_to_10_seconds(zoo: ServerProcess) -> None:
    bounds = [
        float(line.split('le="')[1].split('"')[0])
        for line in zoo.metrics().splitlines()
        if line.startswith("medserve_compute_duration_seconds_bucket") and 'model="lookup"' in line
    ]
    assert (bounds[0], bounds[-2], bounds[-1]) == (0.0001, 10.0, float("inf"))


def test_session_info_describes_the_session() -> None:
    with running_server("--threads", "1", "--transport", "grpcio") as server:
        info = 'medserve_session_info{model="chest-xray",precision="fp32",provider="cpu",threads="1",version="1"} 1.0'
        assert info in server.metrics()


def test_metrics_page_listens_on_separate_address(zoo: ServerProcess) -> None:
    with urlopen(zoo.metrics_url, timeout=PATIENCE) as response:  # noqa: S310 - our own http address
        assert response.headers["Content-Type"].startswith("text/plain")
