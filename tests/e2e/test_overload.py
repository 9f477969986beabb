"""More calls than the server can answer: it goes on answering as many as it can, and refuses the others at once."""

import io
from pathlib import Path

import grpc
import numpy as np
import pytest
from benchmarks import client_flood
from PIL import Image

import model_folder
import onnx_models
from medserve_client.loadtest import LoadPlan, run
from medserve_proto.inference import grpc_service_pb2 as pb
from medserve_proto.inference.grpc_service_pb2_grpc import GRPCInferenceServiceStub
from medserve_proto.v1 import image_classification_pb2 as classification
from medserve_proto.v1.image_classification_pb2_grpc import ImageClassificationStub
from server_process import ServerProcess, running_server
from waiting import wait_until

METHOD = "/inference.GRPCInferenceService/ModelInfer"
CLASSIFY = "/medserve.v1.ImageClassification/Classify"
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


def test_a_client_that_fills_its_connection_loses_no_call(transport: str, tmp_path: Path) -> None:
    """Each answer lets the next of its calls go out, before the server has cleared away the one that ended."""
    onnx_models.save(tmp_path, "add", onnx_models.add(1))
    plain = [("grpc.enable_retries", 0)]
    with (
        running_server("--models", str(tmp_path), "--transport", transport, "--max-connection-streams", "32") as server,
        grpc.insecure_channel(server.target, plain) as channel,
    ):
        stub = GRPCInferenceServiceStub(channel)
        calls = [stub.ModelInfer.future(model_folder.request("add", 0.0), timeout=60) for _ in range(3000)]
        assert {call.code() for call in calls} == {grpc.StatusCode.OK}


def most_answered(server: ServerProcess, method: str, payloads: list[bytes]) -> float:
    """Answers in a second, to four callers; asked before and after a flood, it shows a machine that got busier."""
    plan = LoadPlan(server.target, method, payloads, concurrency=4, duration=1, warmup=0.3, timeout=TIMEOUT)
    return run(plan).throughput


def test_calls_that_would_come_too_late_do_not_make_all_others_late(transport: str, tmp_path: Path) -> None:
    """A queue that is longer than its callers' patience would hold nothing but calls that nobody waits for any more."""
    onnx_models.save(tmp_path, "slow", onnx_models.slow(6))
    payloads = [request().SerializeToString()]
    flags = ("--transport", transport, "--models", str(tmp_path), "--max-batch-rows", "1")
    with running_server(*flags) as server:
        most = most_answered(server, METHOD, payloads)
        patience = 100 / most  # the queue holds a thousand calls
        rate = 3 * most
        flood = run(LoadPlan(server.target, METHOD, payloads, rate=rate, duration=4, warmup=1, timeout=patience))
        assert flood.throughput >= min(most, most_answered(server, METHOD, payloads)) / 2
        assert server.sample('medserve_refused_total{reason="deadline"}') > 0


def large_picture() -> classification.ClassifyRequest:
    """A file of some 45 KB that takes many times as long to read as the network takes to answer."""
    noise = np.random.default_rng(0).integers(0, 256, (128, 128), np.uint8)
    file = io.BytesIO()
    Image.fromarray(noise.repeat(16, axis=0).repeat(16, axis=1)).save(file, "png")
    return classification.ClassifyRequest(
        model_name="chest-xray", images=[classification.Image(encoded=file.getvalue())]
    )


def test_pictures_that_would_be_read_too_late_do_not_make_all_others_late(transport: str) -> None:
    payloads = [large_picture().SerializeToString()]
    with running_server("--transport", transport) as server:
        most = most_answered(server, CLASSIFY, payloads)
        patience = 30 / most  # 512 calls of a client may be under way
        rate = 5 * most
        flood = run(LoadPlan(server.target, CLASSIFY, payloads, rate=rate, duration=4, warmup=2, timeout=patience))
        assert set(flood.errors) <= REFUSALS
        assert flood.throughput >= min(most, most_answered(server, CLASSIFY, payloads)) / 2
        assert server.sample('medserve_refused_total{reason="deadline"}') > 0


def test_the_client_holds_back_what_the_server_would_refuse(transport: str) -> None:
    request = large_picture()
    payloads = [request.SerializeToString()]
    with running_server("--transport", transport) as server:
        most = most_answered(server, CLASSIFY, payloads)
        pictures = [[request.images[0].encoded]]
        load = client_flood.ClientLoad(
            server.target, pictures, None, 5 * most, duration=4, warmup=2, timeout=30 / most, clients=4
        )
        flood, _ = client_flood.run(load)
        assert flood.throughput >= min(most, most_answered(server, CLASSIFY, payloads)) / 2
        # By far the most of what was not answered has not even reached the server.
        assert flood.sent > flood.completed + 2 * server.sample('medserve_refused_total{reason="deadline"}')
        assert set(flood.errors) <= REFUSALS


def test_pictures_that_nobody_waits_for_are_not_read(transport: str) -> None:
    request = large_picture()
    cpu = "process_cpu_seconds_total"
    under_way = 'medserve_inflight_requests{model="chest-xray"'
    apart = [("grpc.use_local_subchannel_pool", 1)]  # a connection that cancels many may be refused its next call
    with (
        running_server("--transport", transport) as server,
        grpc.insecure_channel(server.target) as channel,
        grpc.insecure_channel(server.target, apart) as leaving,
    ):
        stub = ImageClassificationStub(channel)
        stub.Classify(request, timeout=TIMEOUT)
        began = server.sample(cpu)
        for _ in range(10):
            stub.Classify(request, timeout=TIMEOUT)
        for_ten = server.sample(cpu) - began
        began = server.sample(cpu)
        leaver = ImageClassificationStub(leaving)
        calls = [leaver.Classify.future(request) for _ in range(200)]
        wait_until(lambda: server.sample(under_way) > 100)
        for call in calls:
            call.cancel()
        stub.Classify(request)  # waits behind all that is still to be read
        assert server.sample(cpu) - began < 10 * for_ten
