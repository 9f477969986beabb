"""Refused requests of the Open Inference Protocol: their status and the field that the error names."""

from collections.abc import Callable
from typing import Any

import grpc
import numpy as np
import pytest

from calls.bad_request import code_of, violations
from calls.inference_requests import floats, raw_request
from medserve_proto.inference import grpc_service_pb2 as pb
from medserve_proto.inference.grpc_service_pb2_grpc import GRPCInferenceServiceStub


@pytest.fixture(scope="module")
def stub(zoo_channel: grpc.Channel) -> GRPCInferenceServiceStub:
    return GRPCInferenceServiceStub(zoo_channel)


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
    "missing input": (
        changed(lambda request: request.ClearField("inputs")),
        "inputs",
        "does not contain x, FP32 [-1, 3]",
    ),
    "input given twice": (changed(repeat_input), "inputs[1].name", "already listed"),
    "wrong datatype": (changed(set_datatype), "inputs[x].datatype", "is 'FP64', expected FP32"),
    "wrong size": (changed(set_shape(1, 4)), "inputs[x].shape", "is [1, 4], expected [-1, 3]"),
    "wrong rank": (changed(set_shape(3)), "inputs[x].shape", "is [3], expected [-1, 3]"),
    "negative size": (changed(set_shape(-1, 3)), "inputs[x].shape", "is [-1, 3]"),
    "empty batch": (changed(set_shape(0, 3)), "inputs[x].shape", "the batch is empty"),
    "huge shape": (changed(set_shape(2**62, 3)), "raw_input_contents[0]", "has 12 bytes, expected"),
    "raw too short": (changed(set_shape(2, 3)), "raw_input_contents[0]", "has 12 bytes, expected 24"),
    "no raw contents": (changed(lambda r: r.ClearField("raw_input_contents")), "inputs[x].contents", "0 elements"),
    "raw contents without input": (
        changed(lambda r: r.raw_input_contents.append(b"")),
        "raw_input_contents",
        "has 2 entries for 1 inputs",
    ),
    "raw and typed": (both_ways(), "inputs[x].contents", "in addition to raw_input_contents"),
    "unknown output": (changed(lambda r: r.outputs.add(name="q")), "outputs[0].name", "the model's outputs are y"),
    "typed FP16": (typed("FP16", [1, 3], "fp32_contents", [1, 2, 3]), "inputs[x].contents", "raw_input_contents"),
    "typed BF16": (typed("BF16", [1, 3], "fp32_contents", [1, 2, 3]), "inputs[x].contents", "raw_input_contents"),
    "wrong contents field": (typed("FP32", [1, 3], "int_contents", [1, 2, 3]), "inputs[x].contents", "fp32_contents"),
    "number too large": (
        typed("INT8", [1, 3], "int_contents", [1, 2, 300]),
        "inputs[x].contents",
        "out of range for INT8",
    ),
    "invalid UTF-8": (
        typed("BYTES", [1, 3], "bytes_contents", [b"a", b"\xff", b""]),
        "inputs[x].contents",
        "not UTF-8",
    ),
    "too many rows": (
        raw_request("identity-fp32", np.zeros((1001, 3), np.float32), "FP32"),
        "inputs[x].shape",
        "has 1001 rows, at most 1000",
    ),
    "truncated raw strings": (
        pb.ModelInferRequest(
            model_name="identity-bytes",
            inputs=[pb.ModelInferRequest.InferInputTensor(name="x", datatype="BYTES", shape=[1, 3])],
            raw_input_contents=[b"\x05\0\0\0abc"],
        ),
        "raw_input_contents[0]",
        "ends inside element 0 of 3",
    ),
    "invalid booleans": (
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
def test_invalid_request_is_refused_with_its_field(stub: GRPCInferenceServiceStub, name: str) -> None:
    request, field, text = BAD_REQUESTS[name]
    with pytest.raises(grpc.RpcError) as caught:
        stub.ModelInfer(request)
    assert code_of(caught) is grpc.StatusCode.INVALID_ARGUMENT
    found = violations(caught.value)
    (path,) = [path for path in found if path.startswith(field)]
    assert text in found[path]
    assert stub.ModelInfer(floats([1, 2, 3])).raw_output_contents, "the server still responds"


@pytest.mark.parametrize(
    ("model", "version", "field", "text"),
    [
        ("identity-fp23", "", "model_name", "did you mean identity-fp32?"),
        ("", "", "model_name", "is empty"),
        ("../../etc/passwd", "", "model_name", "the served models are"),
        ("identity-fp32", "3", "model_version", "the versions of identity-fp32 are 1"),
        ("identity-fp32", "../1", "model_version", "the versions of identity-fp32 are 1"),
    ],
)
def test_unknown_model_is_not_found(
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
    assert violations(caught.value) == {"inputs[b].shape": "has 2 rows, but another input has 1"}


@pytest.mark.parametrize("parameter", ["sequence_id", "sequence_start"])
def test_unsupported_parameter_is_refused(stub: GRPCInferenceServiceStub, parameter: str) -> None:
    request = floats([1, 2, 3])
    request.parameters[parameter].int64_param = 1
    with pytest.raises(grpc.RpcError) as caught:
        stub.ModelInfer(request)
    assert code_of(caught) is grpc.StatusCode.UNIMPLEMENTED


def test_message_over_the_limit_is_refused(stub: GRPCInferenceServiceStub) -> None:
    request = raw_request("sequence", np.zeros((5 * 2**20, 1), np.float32), "FP32")
    with pytest.raises(grpc.RpcError) as caught:
        stub.ModelInfer(request)
    assert code_of(caught) is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert stub.ModelInfer(floats([1, 2, 3])).raw_output_contents, "the server still responds"


@pytest.mark.parametrize("method", ["ModelInfer", "ModelReady"])
def test_malformed_message_is_refused(zoo_channel: grpc.Channel, method: str) -> None:
    call: Any = zoo_channel.unary_unary(f"/inference.GRPCInferenceService/{method}")
    with pytest.raises(grpc.RpcError) as caught:
        call(b"\xff\xff\xff")
    assert code_of(caught) is grpc.StatusCode.INVALID_ARGUMENT
    assert "the 3 bytes of the message are not a valid request of this method" in str(caught.value.details())


def test_malformed_message_ends_a_stream(zoo_channel: grpc.Channel) -> None:
    call: Any = zoo_channel.stream_stream("/inference.GRPCInferenceService/ModelStreamInfer")
    with pytest.raises(grpc.RpcError) as caught:
        list(call(iter([b"\xff\xff\xff"])))
    assert code_of(caught) is grpc.StatusCode.INVALID_ARGUMENT


@pytest.mark.parametrize("name", ["priority", "timeout"])
def test_invalid_parameter_is_reported(stub: GRPCInferenceServiceStub, name: str) -> None:
    request = floats([1, 2, 3])
    request.parameters[name].string_param = "high"
    with pytest.raises(grpc.RpcError) as caught:
        stub.ModelInfer(request)
    assert "whole number" in violations(caught.value)[f"parameters[{name}]"]


def test_model_control_is_unimplemented(stub: GRPCInferenceServiceStub) -> None:
    for call in (
        lambda: stub.RepositoryModelLoad(pb.RepositoryModelLoadRequest(model_name="chest-xray")),
        lambda: stub.RepositoryModelUnload(pb.RepositoryModelUnloadRequest(model_name="chest-xray")),
    ):
        with pytest.raises(grpc.RpcError) as caught:
            call()
        assert code_of(caught) is grpc.StatusCode.UNIMPLEMENTED


def test_raw_patients_are_checked_against_the_manifest(stub: GRPCInferenceServiceStub) -> None:
    """The tensor API applies the same checks as PatientRisk."""

    def predict(row: list[float]) -> pb.ModelInferResponse:
        array = np.array([row], np.float32)
        tensor = pb.ModelInferRequest.InferInputTensor(name="features", datatype="FP32", shape=array.shape)
        return stub.ModelInfer(
            pb.ModelInferRequest(model_name="breast-cancer-risk", inputs=[tensor], raw_input_contents=[array.tobytes()])
        )

    good = [55.0, 1, 25, 1, 3, 30, 40, 0]
    assert predict(good).raw_output_contents
    assert predict([55.0, 1, 25, 1, 3, 30, np.nan, 0]).raw_output_contents, "a missing value that is imputed"
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
