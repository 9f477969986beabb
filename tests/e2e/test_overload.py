"""More calls than the server can answer: it goes on answering as many as it can, and refuses the others at once."""

from pathlib import Path

import grpc
import numpy as np
import pytest

import onnx_models
from medserve_client.loadtest import LoadPlan, run
from medserve_proto.inference import grpc_service_pb2 as pb
from medserve_proto.inference.grpc_service_pb2_grpc import GRPCInferenceServiceStub
from server_process import ServerProcess, running_server

METHOD = "/inference.GRPCInferenceService/ModelInfer"
TIMEOUT = 10.0
# How a call may end that was not answered: refused, too late, or turned away before it was read.
REFUSALS = {"RESOURCE_EXHAUSTED", "DEADLINE_EXCEEDED", "UNAVAILABLE"}


def request() -> pb.ModelInferRequest:
    """One for the model that takes long: a run of it costs the same on either transport."""
    tensor = pb.ModelInferRequest.InferInputTensor(name="x", datatype="FP32", shape=[1, 1])
    return pb.ModelInferRequest(
        model_name="slow", inputs=[tensor], raw_input_contents=[np.zeros((1, 1), np.float32).tobytes()]
    )


@pytest.mark.parametrize("times", [3, 5])
def test_what_comes_beyond_the_limit_costs_the_rest_little(zoo: ServerProcess, times: int) -> None:
    payloads = [request().SerializeToString()]
    most = run(LoadPlan(zoo.target, METHOD, payloads, concurrency=4, duration=1, warmup=0.3, timeout=TIMEOUT))
    assert not most.errors
    rate = times * most.throughput
    flood = run(
        LoadPlan(zoo.target, METHOD, payloads, rate=rate, duration=2, warmup=0.5, timeout=TIMEOUT, connections=4)
    )
    assert set(flood.errors) <= REFUSALS
    assert flood.errors["RESOURCE_EXHAUSTED"] > 0  # the queue is bounded: 8 of the zoo's requests
    assert flood.sent == len(flood.latencies) + flood.errors.total()  # nothing hangs
    assert flood.throughput >= most.throughput / 2
    with grpc.insecure_channel(zoo.target) as channel:
        assert GRPCInferenceServiceStub(channel).ModelInfer(request(), timeout=TIMEOUT).model_name == "slow"


def test_calls_that_would_come_too_late_do_not_make_all_others_late(transport: str, tmp_path: Path) -> None:
    """A queue that is longer than its callers' patience would hold nothing but calls that nobody waits for any more."""
    onnx_models.save(tmp_path, "slow", onnx_models.slow(6))
    payloads = [request().SerializeToString()]
    flags = ("--transport", transport, "--models", str(tmp_path), "--max-batch-rows", "1")
    with running_server(*flags) as server:
        most = run(LoadPlan(server.target, METHOD, payloads, concurrency=4, duration=1, warmup=0.3, timeout=TIMEOUT))
        patience = 100 / most.throughput  # the queue holds a thousand calls
        rate = 3 * most.throughput
        flood = run(LoadPlan(server.target, METHOD, payloads, rate=rate, duration=4, warmup=1, timeout=patience))
        assert flood.throughput >= most.throughput / 2
        assert server.sample('medserve_refused_total{reason="deadline"}') > 0
