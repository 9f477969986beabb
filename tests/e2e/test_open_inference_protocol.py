"""The Open Inference Protocol, as any client of it sees it."""

import struct
from collections.abc import Callable, Iterator
from typing import Any

import grpc
import numpy as np
import pytest
from numpy.typing import NDArray

from bad_request import code_of, violations
from medserve_proto.inference import grpc_service_pb2 as pb
from medserve_proto.inference.grpc_service_pb2_grpc import GRPCInferenceServiceStub
from server_process import ServerProcess

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
    "BF16": np.uint16,  # its bits
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
    """Two rows of three with the extremes of the datatype."""
    dtype: Any = DTYPES[datatype]
    if datatype == "BOOL":
        return np.array([[True, False, True], [False, False, True]])
    if np.issubdtype(dtype, np.integer):
        limits = np.iinfo(dtype)
        return np.array([[limits.min, limits.max, 1], [2, 3, 4]], dtype)
    return np.array([[0.1, -2.5, np.inf], [1e-5, 0, 3]], dtype)


def raw_request(model: str, array: NDArray[np.generic], datatype: str, request_id: str = "") -> pb.ModelInferRequest:
    tensor = pb.ModelInferRequest.InferInputTensor(name="x", datatype=datatype, shape=array.shape)
    return pb.ModelInferRequest(model_name=model, inputs=[tensor], raw_input_contents=[array.tobytes()], id=request_id)


def floats(*rows: list[float]) -> pb.ModelInferRequest:
    return raw_request("identity-fp32", np.array(rows, np.float32), "FP32")


@pytest.mark.parametrize("datatype", DTYPES)
def test_every_datatype_travels_raw(stub: GRPCInferenceServiceStub, datatype: str) -> None:
    array = example(datatype)
    response = stub.ModelInfer(raw_request(f"identity-{datatype.lower()}", array, datatype, "a-7"))
    assert response.raw_output_contents == [array.tobytes()]
    (output,) = response.outputs
    assert (output.name, output.datatype, list(output.shape)) == ("y", datatype, [2, 3])
    assert not output.HasField("contents")
    assert (response.id, response.model_version) == ("a-7", "1")


@pytest.mark.parametrize("datatype", CONTENTS)
def test_typed_contents_are_answered_with_typed_contents(stub: GRPCInferenceServiceStub, datatype: str) -> None:
    array = example(datatype)
    tensor = pb.ModelInferRequest.InferInputTensor(name="x", datatype=datatype, shape=[2, 3])
    getattr(tensor.contents, CONTENTS[datatype]).extend(array.ravel().tolist())
    response = stub.ModelInfer(pb.ModelInferRequest(model_name=f"identity-{datatype.lower()}", inputs=[tensor]))
    (output,) = response.outputs
    assert not response.raw_output_contents
    answered = np.array(getattr(output.contents, CONTENTS[datatype]), DTYPES[datatype]).reshape(2, 3)
    np.testing.assert_array_equal(answered, array)


STRINGS = ["", "plain", "Prüfung", "nul\0inside", "🩻", "x" * 1000]


def test_strings_travel_raw(stub: GRPCInferenceServiceStub) -> None:
    elements = [text.encode() for text in STRINGS]
    payload = b"".join(struct.pack("<I", len(element)) + element for element in elements)
    tensor = pb.ModelInferRequest.InferInputTensor(name="x", datatype="BYTES", shape=[2, 3])
    response = stub.ModelInfer(
        pb.ModelInferRequest(model_name="identity-bytes", inputs=[tensor], raw_input_contents=[payload])
    )
    assert response.raw_output_contents == [payload]


def test_strings_travel_typed(stub: GRPCInferenceServiceStub) -> None:
    tensor = pb.ModelInferRequest.InferInputTensor(name="x", datatype="BYTES", shape=[2, 3])
    tensor.contents.bytes_contents.extend(text.encode() for text in STRINGS)
    response = stub.ModelInfer(pb.ModelInferRequest(model_name="identity-bytes", inputs=[tensor]))
    assert [element.decode() for element in response.outputs[0].contents.bytes_contents] == STRINGS


def test_only_the_requested_outputs_are_returned(stub: GRPCInferenceServiceStub) -> None:
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


def test_a_request_larger_than_a_batch_comes_back_whole(stub: GRPCInferenceServiceStub) -> None:
    array = np.arange(3 * 501, dtype=np.float32).reshape(501, 3)
    response = stub.ModelInfer(raw_request("identity-fp32", array, "FP32"))
    assert response.raw_output_contents == [array.tobytes()]


def test_a_model_whose_first_axis_is_no_batch_takes_any_size(stub: GRPCInferenceServiceStub) -> None:
    array = np.arange(700, dtype=np.float32).reshape(100, 7)
    assert stub.ModelInfer(raw_request("sequence", array, "FP32")).raw_output_contents == [array.tobytes()]
    config = stub.ModelConfig(pb.ModelConfigRequest(name="sequence")).config
    assert config.max_batch_size == 0
    assert not config.HasField("dynamic_batching")


def both_ways() -> pb.ModelInferRequest:
    request = floats([1, 2, 3])
    request.inputs[0].contents.fp32_contents.extend([1, 2, 3])
    return request


def typed(datatype: str, shape: list[int], field: str, values: list[Any]) -> pb.ModelInferRequest:
    tensor = pb.ModelInferRequest.InferInputTensor(name="x", datatype=datatype, shape=shape)
    getattr(tensor.contents, field).extend(values)
    return pb.ModelInferRequest(model_name=f"identity-{datatype.lower()}", inputs=[tensor])


def changed(change: Callable[[pb.ModelInferRequest], object]) -> pb.ModelInferRequest:
    request = floats([1, 2, 3])
    change(request)
    return request


def rename_input(request: pb.ModelInferRequest) -> None:
    request.inputs[0].name = "z"


def repeat_input(request: pb.ModelInferRequest) -> None:
    request.inputs.append(request.inputs[0])
    request.raw_input_contents.append(request.raw_input_contents[0])


def set_datatype(request: pb.ModelInferRequest) -> None:
    request.inputs[0].datatype = "FP64"


def set_shape(*shape: int) -> Callable[[pb.ModelInferRequest], None]:
    def change(request: pb.ModelInferRequest) -> None:
        request.inputs[0].shape[:] = shape

    return change


BAD_REQUESTS = {
    "wrong input name": (changed(rename_input), "inputs[0].name", "the model's inputs are x"),
    "missing input": (changed(lambda request: request.ClearField("inputs")), "inputs", "lacks x, FP32 [-1, 3]"),
    "input given twice": (changed(repeat_input), "inputs[1].name", "second time"),
    "wrong datatype": (changed(set_datatype), "inputs[x].datatype", "is 'FP64', expected FP32"),
    "wrong size": (changed(set_shape(1, 4)), "inputs[x].shape", "is [1, 4], expected [-1, 3]"),
    "wrong rank": (changed(set_shape(3)), "inputs[x].shape", "is [3], expected [-1, 3]"),
    "negative size": (changed(set_shape(-1, 3)), "inputs[x].shape", "is [-1, 3]"),
    "empty batch": (changed(set_shape(0, 3)), "inputs[x].shape", "the batch is empty"),
    "huge shape": (changed(set_shape(2**62, 3)), "raw_input_contents[0]", "has 12 bytes, expected"),
    "raw too short": (changed(set_shape(2, 3)), "raw_input_contents[0]", "has 12 bytes, expected 24"),
    "no raw for the input": (changed(lambda r: r.ClearField("raw_input_contents")), "inputs[x].contents", "0 elements"),
    "raw without input": (
        changed(lambda r: r.raw_input_contents.append(b"")),
        "raw_input_contents",
        "has 2 entries for 1 inputs",
    ),
    "raw and typed": (both_ways(), "inputs[x].contents", "beside raw_input_contents"),
    "unknown output": (changed(lambda r: r.outputs.add(name="q")), "outputs[0].name", "the model's outputs are y"),
    "typed FP16": (typed("FP16", [1, 3], "fp32_contents", [1, 2, 3]), "inputs[x].contents", "raw_input_contents"),
    "typed BF16": (typed("BF16", [1, 3], "fp32_contents", [1, 2, 3]), "inputs[x].contents", "raw_input_contents"),
    "wrong contents field": (typed("FP32", [1, 3], "int_contents", [1, 2, 3]), "inputs[x].contents", "fp32_contents"),
    "number too large": (typed("INT8", [1, 3], "int_contents", [1, 2, 300]), "inputs[x].contents", "no INT8"),
    "no UTF-8": (typed("BYTES", [1, 3], "bytes_contents", [b"a", b"\xff", b""]), "inputs[x].contents", "not UTF-8"),
    "too many rows": (
        raw_request("identity-fp32", np.zeros((1001, 3), np.float32), "FP32"),
        "inputs[x].shape",
        "has 1001 rows, at most 1000",
    ),
    "raw strings cut off": (
        pb.ModelInferRequest(
            model_name="identity-bytes",
            inputs=[pb.ModelInferRequest.InferInputTensor(name="x", datatype="BYTES", shape=[1, 3])],
            raw_input_contents=[b"\x05\0\0\0abc"],
        ),
        "raw_input_contents[0]",
        "ends inside element 0 of 3",
    ),
    "bytes that are no booleans": (
        pb.ModelInferRequest(
            model_name="identity-bool",
            inputs=[pb.ModelInferRequest.InferInputTensor(name="x", datatype="BOOL", shape=[1, 3])],
            raw_input_contents=[b"\x00\x01\x02"],
        ),
        "raw_input_contents[0]",
        "neither 0 nor 1",
    ),
}


@pytest.mark.parametrize("name", BAD_REQUESTS)
def test_a_bad_request_is_refused_with_the_field_named(stub: GRPCInferenceServiceStub, name: str) -> None:
    request, field, text = BAD_REQUESTS[name]
    with pytest.raises(grpc.RpcError) as caught:
        stub.ModelInfer(request)
    assert code_of(caught) is grpc.StatusCode.INVALID_ARGUMENT
    found = violations(caught.value)
    (path,) = [path for path in found if path.startswith(field)]
    assert text in found[path]
    assert stub.ModelInfer(floats([1, 2, 3])).raw_output_contents, "the server goes on serving"


@pytest.mark.parametrize(
    ("model", "version", "field", "text"),
    [
        ("identity-fp23", "", "model_name", "did you mean identity-fp32?"),
        ("", "", "model_name", "is empty"),
        ("../../etc/passwd", "", "model_name", "the models here are"),
        ("identity-fp32", "3", "model_version", "identity-fp32 has 1"),
        ("identity-fp32", "../1", "model_version", "identity-fp32 has 1"),
    ],
)
def test_an_unknown_model_is_not_found(
    stub: GRPCInferenceServiceStub, model: str, version: str, field: str, text: str
) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        stub.ModelInfer(pb.ModelInferRequest(model_name=model, model_version=version))
    assert code_of(caught) is grpc.StatusCode.NOT_FOUND
    assert text in violations(caught.value)[field]


def test_inputs_with_different_numbers_of_rows_are_refused(stub: GRPCInferenceServiceStub) -> None:
    tensor = pb.ModelInferRequest.InferInputTensor
    request = pb.ModelInferRequest(
        model_name="two-inputs",
        inputs=[tensor(name="a", datatype="FP32", shape=[1, 2]), tensor(name="b", datatype="FP32", shape=[2, 2])],
        raw_input_contents=[bytes(8), bytes(16)],
    )
    with pytest.raises(grpc.RpcError) as caught:
        stub.ModelInfer(request)
    assert violations(caught.value) == {"inputs[b].shape": "has 2 rows where another input has 1"}


@pytest.mark.parametrize("parameter", ["sequence_id", "sequence_start"])
def test_a_parameter_that_would_change_the_answer_is_not_ignored(
    stub: GRPCInferenceServiceStub, parameter: str
) -> None:
    request = floats([1, 2, 3])
    request.parameters[parameter].int64_param = 1
    with pytest.raises(grpc.RpcError) as caught:
        stub.ModelInfer(request)
    assert code_of(caught) is grpc.StatusCode.UNIMPLEMENTED


def test_a_message_over_the_limit_is_refused(stub: GRPCInferenceServiceStub) -> None:
    request = raw_request("sequence", np.zeros((5 * 2**20, 1), np.float32), "FP32")
    with pytest.raises(grpc.RpcError) as caught:
        stub.ModelInfer(request)
    assert code_of(caught) is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert stub.ModelInfer(floats([1, 2, 3])).raw_output_contents, "the server goes on serving"


@pytest.mark.parametrize("method", ["ModelInfer", "ModelReady"])
def test_bytes_that_are_no_message_are_refused(zoo_channel: grpc.Channel, method: str) -> None:
    call: Any = zoo_channel.unary_unary(f"/inference.GRPCInferenceService/{method}")
    with pytest.raises(grpc.RpcError) as caught:
        call(b"\xff\xff\xff")
    assert code_of(caught) is grpc.StatusCode.INVALID_ARGUMENT
    assert "3 bytes that are no message of this method" in str(caught.value.details())


def test_bytes_that_are_no_message_end_a_stream(zoo_channel: grpc.Channel) -> None:
    call: Any = zoo_channel.stream_stream("/inference.GRPCInferenceService/ModelStreamInfer")
    with pytest.raises(grpc.RpcError) as caught:
        list(call(iter([b"\xff\xff\xff"])))
    assert code_of(caught) is grpc.StatusCode.INVALID_ARGUMENT


def test_a_row_on_which_the_model_fails_fails_alone(stub: GRPCInferenceServiceStub) -> None:
    """Requests of one batch: those with an index outside the table fail, the others get their own answers."""
    indices = [0, 1, 99, 2, 3, 99, 1, 0] * 8
    calls = []
    for index in indices:
        request = raw_request("lookup", np.array([index], np.int64), "INT64")
        calls.append(stub.ModelInfer.future(request))
        if len(calls) % 8 == 0:  # stays below the queue's bound
            for call in calls[-8:]:
                call.code()
    for index, call in zip(indices, calls, strict=True):
        if index == 99:
            assert call.code() is grpc.StatusCode.INTERNAL
        else:
            assert np.frombuffer(call.result().raw_output_contents[0], np.float32) == [10 + index]


def test_a_full_queue_refuses_at_once_and_loses_nothing(stub: GRPCInferenceServiceStub) -> None:
    calls = [stub.ModelInfer.future(raw_request("slow", np.full((64, 1), i, np.float32), "FP32")) for i in range(40)]
    codes = [call.code() for call in calls]
    assert set(codes) == {grpc.StatusCode.OK, grpc.StatusCode.RESOURCE_EXHAUSTED}
    for i, call in enumerate(calls):
        if codes[i] is grpc.StatusCode.OK:
            answer = np.frombuffer(call.result().raw_output_contents[0], np.float32)
            np.testing.assert_array_equal(answer, np.full(64, i))


def test_an_expired_request_is_not_computed(zoo: ServerProcess, stub: GRPCInferenceServiceStub) -> None:
    def rows_computed() -> int:
        statistics = stub.ModelStatistics(pb.ModelStatisticsRequest(name="slow")).model_stats
        return sum(model.inference_count for model in statistics)

    request = raw_request("slow", np.zeros((64, 1), np.float32), "FP32")
    stub.ModelInfer(request)  # whatever other tests left in the queue is over after this
    before = rows_computed()
    long = stub.ModelInfer.future(raw_request("slow", np.zeros((320, 1), np.float32), "FP32"))
    while zoo.sample('medserve_inflight_requests{model="slow"') == 0:
        assert not long.done(), "the others have to queue behind it"
    late = [stub.ModelInfer.future(request, timeout=0.01) for _ in range(3)]
    assert {call.code() for call in late} == {grpc.StatusCode.DEADLINE_EXCEEDED}
    assert long.code() is grpc.StatusCode.OK
    stub.ModelInfer(request)
    assert rows_computed() - before == 320 + 64


def test_a_timeout_parameter_ends_the_wait(stub: GRPCInferenceServiceStub) -> None:
    request = raw_request("slow", np.zeros((64, 1), np.float32), "FP32")
    running = [stub.ModelInfer.future(request) for _ in range(3)]
    request.parameters["timeout"].int64_param = 1  # microsecond
    with pytest.raises(grpc.RpcError) as caught:
        stub.ModelInfer(request)
    assert code_of(caught) is grpc.StatusCode.DEADLINE_EXCEEDED
    assert {call.code() for call in running} == {grpc.StatusCode.OK}


@pytest.mark.parametrize("name", ["priority", "timeout"])
def test_a_wrong_parameter_is_named(stub: GRPCInferenceServiceStub, name: str) -> None:
    request = floats([1, 2, 3])
    request.parameters[name].string_param = "high"
    with pytest.raises(grpc.RpcError) as caught:
        stub.ModelInfer(request)
    assert "whole number" in violations(caught.value)[f"parameters[{name}]"]


def test_a_stream_answers_in_order_and_survives_a_bad_request(stub: GRPCInferenceServiceStub) -> None:
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


def test_metadata_and_index_tell_what_is_served(stub: GRPCInferenceServiceStub) -> None:
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


def test_model_control_is_unimplemented(stub: GRPCInferenceServiceStub) -> None:
    for call in (
        lambda: stub.RepositoryModelLoad(pb.RepositoryModelLoadRequest(model_name="chest-xray")),
        lambda: stub.RepositoryModelUnload(pb.RepositoryModelUnloadRequest(model_name="chest-xray")),
    ):
        with pytest.raises(grpc.RpcError) as caught:
            call()
        assert code_of(caught) is grpc.StatusCode.UNIMPLEMENTED


def test_raw_patients_are_held_to_the_manifest(stub: GRPCInferenceServiceStub) -> None:
    """The tensor API is no way around the checks of PatientRisk."""

    def predict(row: list[float]) -> pb.ModelInferResponse:
        array = np.array([row], np.float32)
        tensor = pb.ModelInferRequest.InferInputTensor(name="features", datatype="FP32", shape=array.shape)
        return stub.ModelInfer(
            pb.ModelInferRequest(model_name="breast-cancer-risk", inputs=[tensor], raw_input_contents=[array.tobytes()])
        )

    good = [55.0, 1, 25, 1, 3, 30, 40, 0]
    assert predict(good).raw_output_contents
    assert predict([55.0, 1, 25, 1, 3, 30, np.nan, 0]).raw_output_contents, "a missing value that has a stand-in"
    for column, value, name in (
        (0, np.nan, "age"),
        (0, np.inf, "age"),
        (0, 400, "age"),
        (3, 7, "grade"),
        (4, 2.5, "positive_nodes"),
        (6, -np.inf, "estrogen_receptor"),
    ):
        bad = list(good)
        bad[column] = value
        with pytest.raises(grpc.RpcError) as caught:
            predict(bad)
        assert code_of(caught) is grpc.StatusCode.INVALID_ARGUMENT
        assert f"({name})" in violations(caught.value)["inputs[features]"]
