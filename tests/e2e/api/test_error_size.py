"""Errors of any length arrive with their status code and first violation."""

from collections.abc import Iterator

import grpc
import numpy as np
import pytest
from google.rpc import error_details_pb2
from grpc_status import rpc_status
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper

from medserve_proto.inference import grpc_service_pb2 as pb
from medserve_proto.inference.grpc_service_pb2_grpc import GRPCInferenceServiceStub
from medserve_proto.v1 import image_classification_pb2 as image_pb
from medserve_proto.v1 import patient_risk_pb2 as risk_pb
from medserve_proto.v1.image_classification_pb2_grpc import ImageClassificationStub
from medserve_proto.v1.patient_risk_pb2_grpc import PatientRiskStub
from samples import onnx_models
from servers.server_process import ServerProcess, running_server
from waiting import PATIENCE

MODELS = 250
VERSIONS = 150
INPUTS = 200


def model_name(index: int, length: int) -> str:
    return f"m{index:03}-".ljust(length, "x")


def many_inputs() -> bytes:
    """Returns a model that sums inputs with long non-ASCII names."""
    names = [f"{index}-" + "\u4e2d" * 100 for index in range(INPUTS)]
    rows: tuple[int, onnx_models.Shape] = (TensorProto.FLOAT, ["batch", 1])
    node = helper.make_node("Sum", names, ["y"])
    return bytes(onnx_models.make([node], dict.fromkeys(names, rows), {"y": rows}).SerializeToString())


@pytest.fixture(scope="module")
def crowded(transport: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """Serves many models with names of all lengths, one with many versions, and one with many inputs."""
    folder = tmp_path_factory.mktemp("crowded")
    identity = onnx_models.identity("FP32", ["batch", 3])
    for index in range(MODELS):
        onnx_models.save(folder, model_name(index, 5 + index % 124), identity)
    for version in range(1, VERSIONS + 1):
        onnx_models.save(folder, "versions", identity, version * 10**15)
    path = folder / "inputs/1/model.onnx"
    path.parent.mkdir(parents=True)
    path.write_bytes(many_inputs())
    flags = ("--transport", transport, "--models", str(folder), "--threads", "1", "--max-name-length", "100000")
    with running_server(*flags) as started:
        yield started


@pytest.fixture(scope="module")
def stub(crowded: ServerProcess) -> Iterator[GRPCInferenceServiceStub]:
    with grpc.insecure_channel(crowded.target) as channel:
        yield GRPCInferenceServiceStub(channel)


def refusal(call: grpc.RpcError) -> tuple[grpc.StatusCode, str, list[error_details_pb2.BadRequest.FieldViolation]]:
    """Returns code, message and violations; grpc_status verifies that the first two match the status details."""
    status = rpc_status.from_call(call)  # type: ignore[arg-type]  # an error of a call is a call
    assert status is not None, f"{call} has no details"
    bad_request = error_details_pb2.BadRequest()
    assert [detail for detail in status.details if detail.Unpack(bad_request)]
    return call.code(), status.message, list(bad_request.field_violations)


@pytest.mark.parametrize(
    ("name", "version", "field", "words"),
    [
        ("nothing", "", "model_name", ["is 'nothing'", f"the served models are inputs, {model_name(0, 5)}", " more"]),
        ("", "", "model_name", ["is empty", " more"]),
        ("\u4e2d" * 30_000, "", "model_name", ["is '\u4e2d", " more"]),
        ("%" * 100_000, "", "model_name", ["is '%", " more"]),
        ("versions", "7", "model_version", ["is '7'", f"the versions of versions are {10**15}", " more"]),
        ("versions", "\U0001f600" * 20_000, "model_version", ["is '\U0001f600"]),
    ],
    ids=["unknown", "empty", "chinese", "percent signs", "version", "long version"],
)
def test_unknown_model_is_not_found_among_many(
    stub: GRPCInferenceServiceStub, name: str, version: str, field: str, words: list[str]
) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        stub.ModelInfer(pb.ModelInferRequest(model_name=name, model_version=version), timeout=PATIENCE)
    code, message, violations = refusal(caught.value)
    assert code is grpc.StatusCode.NOT_FOUND
    assert violations[0].field == field
    for word in words:
        assert word in message
        assert word in violations[0].description
    (response,) = stub.ModelStreamInfer(
        iter([pb.ModelInferRequest(model_name=name, model_version=version)]), timeout=PATIENCE
    )
    assert words[0] in response.error_message
    with pytest.raises(grpc.RpcError) as caught:
        stub.ModelMetadata(pb.ModelMetadataRequest(name=name, version=version), timeout=PATIENCE)
    assert refusal(caught.value)[0] is grpc.StatusCode.NOT_FOUND


names = st.builds(
    lambda text, times: text * times,
    st.text(st.characters(codec="utf-8"), min_size=1, max_size=3)
    | st.sampled_from(["%", "\u00fc", "\u4e2d", "\U0001f600"]),
    st.sampled_from([1, 10, 100, 3000]),
)


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck), database=None)
@given(
    model=st.sampled_from(["inputs", model_name(0, 5), "versions"]),
    inputs=st.lists(names, max_size=4),
    outputs=st.lists(names, max_size=4),
    times=st.sampled_from([1, 5, 60]),
)
def test_request_with_many_errors_is_refused_for_the_first(
    stub: GRPCInferenceServiceStub, model: str, inputs: list[str], outputs: list[str], times: int
) -> None:
    request = pb.ModelInferRequest(
        model_name=model,
        inputs=[pb.ModelInferRequest.InferInputTensor(name=name, datatype=name) for name in inputs * times],
        outputs=[pb.ModelInferRequest.InferRequestedOutputTensor(name=name) for name in outputs * times],
    )
    with pytest.raises(grpc.RpcError) as caught:
        stub.ModelInfer(request, timeout=PATIENCE)
    code, message, violations = refusal(caught.value)
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert violations[0].field in {"inputs", "inputs[0].name"}
    assert message.startswith(violations[0].field)


@pytest.mark.parametrize("key", ["sequence_" + "\u4e2d" * 5000, "sequence_" + "%" * 20_000])
def test_long_parameter_is_refused(stub: GRPCInferenceServiceStub, key: str) -> None:
    request = pb.ModelInferRequest(model_name="versions")
    for index in range(50):
        request.parameters[f"{key}{index}"].bool_param = True
    with pytest.raises(grpc.RpcError) as caught:
        stub.ModelInfer(request, timeout=PATIENCE)
    code, _, violations = refusal(caught.value)
    assert code is grpc.StatusCode.UNIMPLEMENTED
    assert violations[0].field.startswith("parameters[sequence_")


@pytest.mark.parametrize("count", [1, 30, 1000])
def test_many_invalid_images_and_patients_are_refused_for_the_first(channel: grpc.Channel, count: int) -> None:
    images = image_pb.ClassifyRequest(model_name="chest-xray")
    for _ in range(count):
        images.images.add().raw.pixels = np.zeros(5, np.uint8).tobytes()
    with pytest.raises(grpc.RpcError) as caught:
        ImageClassificationStub(channel).Classify(images, timeout=PATIENCE)
    code, _, violations = refusal(caught.value)
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert violations[0].field.startswith("images[0]")
    patients = risk_pb.PredictRequest(model_name="breast-cancer-risk")
    for index in range(count):
        feature = patients.patients.add().features.add(key="\u4e2d" * 300 + str(index))
        feature.value.number = 1
    with pytest.raises(grpc.RpcError) as caught:
        PatientRiskStub(channel).Predict(patients, timeout=PATIENCE)
    code, _, violations = refusal(caught.value)
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert violations[0].field.startswith("patients[0]")
