"""The Open Inference Protocol over gRPC."""

import struct
from collections.abc import Iterator
from typing import Any

import grpc
import numpy as np
import pytest
from numpy.typing import NDArray

from calls.bad_request import code_of
from calls.inference_requests import floats, raw_request
from medserve_proto.inference import grpc_service_pb2 as pb
from medserve_proto.inference.grpc_service_pb2_grpc import GRPCInferenceServiceStub
from samples import onnx_models
from servers.held_server import HeldServer, held_server

DTYPES: dict[str, type[np.generic]] = {
    "BOOL": np.bool_,
    "UINT8": np.uint8,
    "UINT16": np.uint16,
    "UINT32": np.uint32,
    "UINT64": np.uint64,
    "INT8": np.int8,
    "INT16": np.int16,
    "INT32": np.int32,
    "INT64": np.int64,
    "FP16": np.float16,
    "BF16": np.uint16,  # raw bits
    "FP32": np.float32,
    "FP64": np.float64,
}
CONTENTS = {
    "BOOL": "bool_contents",
    "UINT8": "uint_contents",
    "UINT16": "uint_contents",
    "UINT32": "uint_contents",
    "UINT64": "uint64_contents",
    "INT8": "int_contents",
    "INT16": "int_contents",
    "INT32": "int_contents",
    "INT64": "int64_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
}


@pytest.fixture(scope="module")
def stub(zoo_channel: grpc.Channel) -> GRPCInferenceServiceStub:
    return GRPCInferenceServiceStub(zoo_channel)


def example(datatype: str) -> NDArray[np.generic]:
    """Returns two rows of three elements, including the extremes of the datatype."""
    dtype: Any = DTYPES[datatype]
    if datatype == "BOOL":
        return np.array([[True, False, True], [False, False, True]])
    if np.issubdtype(dtype, np.integer):
        limits = np.iinfo(dtype)
        return np.array([[limits.min, limits.max, 1], [2, 3, 4]], dtype)
    return np.array([[0.1, -2.5, np.inf], [1e-5, 0, 3]], dtype)


@pytest.mark.parametrize("datatype", DTYPES)
def test_raw_contents_of_every_datatype(stub: GRPCInferenceServiceStub, datatype: str) -> None:
    array = example(datatype)
    response = stub.ModelInfer(raw_request(f"identity-{datatype.lower()}", array, datatype, "a-7"))
    assert response.raw_output_contents == [array.tobytes()]
    (output,) = response.outputs
    assert (output.name, output.datatype, list(output.shape)) == ("y", datatype, [2, 3])
    assert not output.HasField("contents")
    assert (response.id, response.model_version) == ("a-7", "1")


@pytest.mark.parametrize("datatype", CONTENTS)
def test_typed_request_gets_typed_response(stub: GRPCInferenceServiceStub, datatype: str) -> None:
    array = example(datatype)
    tensor = pb.ModelInferRequest.InferInputTensor(name="x", datatype=datatype, shape=[2, 3])
    getattr(tensor.contents, CONTENTS[datatype]).extend(array.ravel().tolist())
    response = stub.ModelInfer(pb.ModelInferRequest(model_name=f"identity-{datatype.lower()}", inputs=[tensor]))
    (output,) = response.outputs
    assert not response.raw_output_contents
    answered = np.array(getattr(output.contents, CONTENTS[datatype]), DTYPES[datatype]).reshape(2, 3)
    np.testing.assert_array_equal(answered, array)


STRINGS = ["", "plain", "Prüfung", "nul\0inside", "🩻", "x" * 1000]


def test_raw_strings(stub: GRPCInferenceServiceStub) -> None:
    elements = [text.encode() for text in STRINGS]
    payload = b"".join(struct.pack("<I", len(element)) + element for element in elements)
    tensor = pb.ModelInferRequest.InferInputTensor(name="x", datatype="BYTES", shape=[2, 3])
    response = stub.ModelInfer(
        pb.ModelInferRequest(model_name="identity-bytes", inputs=[tensor], raw_input_contents=[payload])
    )
    assert response.raw_output_contents == [payload]


def test_typed_strings(stub: GRPCInferenceServiceStub) -> None:
    tensor = pb.ModelInferRequest.InferInputTensor(name="x", datatype="BYTES", shape=[2, 3])
    tensor.contents.bytes_contents.extend(text.encode() for text in STRINGS)
    response = stub.ModelInfer(pb.ModelInferRequest(model_name="identity-bytes", inputs=[tensor]))
    assert [element.decode() for element in response.outputs[0].contents.bytes_contents] == STRINGS


def test_only_requested_outputs_are_returned(stub: GRPCInferenceServiceStub) -> None:
    rows = np.ones((3, 2), np.float32)
    request = pb.ModelInferRequest(
        model_name="two-inputs",
        inputs=[pb.ModelInferRequest.InferInputTensor(name=name, datatype="FP32", shape=[3, 2]) for name in "ab"],
        raw_input_contents=[(rows * 5).tobytes(), rows.tobytes()],
        outputs=[pb.ModelInferRequest.InferRequestedOutputTensor(name="difference")],
    )
    response = stub.ModelInfer(request)
    assert [output.name for output in response.outputs] == ["difference"]
    np.testing.assert_array_equal(np.frombuffer(response.raw_output_contents[0], np.float32), np.full(6, 4))


def test_request_larger_than_a_batch_is_answered_completely(stub: GRPCInferenceServiceStub) -> None:
    array = np.arange(3 * 501, dtype=np.float32).reshape(501, 3)
    response = stub.ModelInfer(raw_request("identity-fp32", array, "FP32"))
    assert response.raw_output_contents == [array.tobytes()]


def test_first_axis_that_is_not_a_batch_axis_may_have_any_size(stub: GRPCInferenceServiceStub) -> None:
    array = np.arange(700, dtype=np.float32).reshape(100, 7)
    assert stub.ModelInfer(raw_request("sequence", array, "FP32")).raw_output_contents == [array.tobytes()]
    config = stub.ModelConfig(pb.ModelConfigRequest(name="sequence")).config
    assert config.max_batch_size == 0
    assert not config.HasField("dynamic_batching")


def test_failing_row_fails_only_its_request(stub: GRPCInferenceServiceStub) -> None:
    """Within a batch, requests with an index out of range fail and the others receive their responses."""
    indices = [0, 1, 99, 2, 3, 99, 1, 0] * 8
    calls = []
    for index in indices:
        request = raw_request("lookup", np.array([index], np.int64), "INT64")
        calls.append(stub.ModelInfer.future(request))
        if len(calls) % 8 == 0:  # keeps the queue below its limit
            for call in calls[-8:]:
                call.code()
    for index, call in zip(indices, calls, strict=True):
        if index == 99:
            assert call.code() is grpc.StatusCode.INTERNAL
        else:
            assert np.frombuffer(call.result().raw_output_contents[0], np.float32) == [10 + index]


@pytest.fixture(scope="module")
def held(transport: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[HeldServer]:
    """Serves y = x with a short queue."""
    folder = tmp_path_factory.mktemp("held")
    onnx_models.save(folder / "models", "x", onnx_models.add(0))
    flags = ("--transport", transport, "--models", str(folder / "models"), "--max-pending-requests", "8")
    with held_server(folder / "file", *flags) as started:
        yield started


@pytest.fixture(scope="module")
def held_stub(held: HeldServer) -> Iterator[GRPCInferenceServiceStub]:
    with grpc.insecure_channel(held.server.target) as opened:
        yield GRPCInferenceServiceStub(opened)


def test_full_queue_refuses_immediately_and_loses_no_request(
    held: HeldServer, held_stub: GRPCInferenceServiceStub
) -> None:
    with held.hold():
        requests = [raw_request("x", np.full((64, 1), i, np.float32), "FP32") for i in range(40)]
        calls = [held_stub.ModelInfer.future(request) for request in requests]
        held.wait_for_all(calls)
        assert 8 <= sum(not call.done() for call in calls) < 40
    codes = [call.code() for call in calls]
    assert set(codes) == {grpc.StatusCode.OK, grpc.StatusCode.RESOURCE_EXHAUSTED}
    for i, call in enumerate(calls):
        if codes[i] is grpc.StatusCode.OK:
            answer = np.frombuffer(call.result().raw_output_contents[0], np.float32)
            np.testing.assert_array_equal(answer, np.full(64, i))


def test_expired_request_is_not_computed(held: HeldServer, held_stub: GRPCInferenceServiceStub) -> None:
    def rows_computed() -> int:
        statistics = held_stub.ModelStatistics(pb.ModelStatisticsRequest(name="x")).model_stats
        return sum(model.inference_count for model in statistics)

    request = raw_request("x", np.zeros((64, 1), np.float32), "FP32")
    before = rows_computed()
    with held.hold():
        long = held_stub.ModelInfer.future(raw_request("x", np.zeros((320, 1), np.float32), "FP32"))
        held.wait_for_calls(1)
        late = [held_stub.ModelInfer.future(request, timeout=5) for _ in range(3)]
        held.wait_for_all([long, *late])
        # The server may refuse those that it reads in time, since the batches of the long request come first.
        assert {call.code() for call in late} <= {grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.RESOURCE_EXHAUSTED}
        held.wait_for_calls(1)
    assert long.code() is grpc.StatusCode.OK
    held_stub.ModelInfer(request)
    assert rows_computed() - before == 320 + 64


def test_timeout_parameter_limits_waiting(stub: GRPCInferenceServiceStub) -> None:
    request = raw_request("slow", np.zeros((64, 1), np.float32), "FP32")
    running = [stub.ModelInfer.future(request) for _ in range(3)]
    request.parameters["timeout"].int64_param = 1  # microsecond
    with pytest.raises(grpc.RpcError) as caught:
        stub.ModelInfer(request)
    assert code_of(caught) is grpc.StatusCode.DEADLINE_EXCEEDED
    assert {call.code() for call in running} == {grpc.StatusCode.OK}


def test_stream_preserves_order_and_survives_an_invalid_request(stub: GRPCInferenceServiceStub) -> None:
    def requests() -> Iterator[pb.ModelInferRequest]:
        for number in range(200):
            request = floats([number, 0, 0])
            request.id = str(number)
            if number % 10 == 3:
                request.inputs[0].datatype = "FP64"
            yield request

    responses = list(stub.ModelStreamInfer(requests()))
    assert [response.infer_response.id for response in responses] == [str(number) for number in range(200)]
    for number, response in enumerate(responses):
        if number % 10 == 3:
            assert "datatype" in response.error_message
            assert not response.infer_response.outputs
        else:
            assert response.error_message == ""
            row = np.frombuffer(response.infer_response.raw_output_contents[0], np.float32)
            np.testing.assert_array_equal(row, [number, 0, 0])


def test_metadata_and_index_list_served_models(stub: GRPCInferenceServiceStub) -> None:
    assert stub.ServerLive(pb.ServerLiveRequest()).live
    assert stub.ServerReady(pb.ServerReadyRequest()).ready
    assert stub.ModelReady(pb.ModelReadyRequest(name="chest-xray", version="2")).ready
    assert not stub.ModelReady(pb.ModelReadyRequest(name="chest-xray", version="3")).ready
    assert stub.ServerMetadata(pb.ServerMetadataRequest()).name == "medserve"
    metadata = stub.ModelMetadata(pb.ModelMetadataRequest(name="chest-xray"))
    assert list(metadata.versions) == ["1", "2"]
    assert [(i.name, i.datatype, list(i.shape)) for i in metadata.inputs] == [("image", "UINT8", [-1, 28, 28, 1])]
    index = stub.RepositoryIndex(pb.RepositoryIndexRequest()).models
    assert ("chest-xray", "1", "READY") in [(model.name, model.version, model.state) for model in index]
    config = stub.ModelConfig(pb.ModelConfigRequest(name="chest-xray")).config
    assert (config.max_batch_size, list(config.input[0].dims)) == (64, [28, 28, 1])
    assert config.parameters["execution_provider"].string_value == "cpu"
