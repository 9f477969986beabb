"""Unmodified tritonclient with the real server, and its field numbers compared with ours."""

import json
import subprocess
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.descriptor_pb2 import DescriptorProto, FileDescriptorSet
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.json_format import ParseDict
from grpc_health.v1 import health_pb2
from grpc_health.v1.health_pb2_grpc import HealthStub
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

from medserve_proto.inference import grpc_service_pb2, model_config_pb2
from samples import onnx_models
from servers.server_process import REPOSITORY, ServerProcess, running_server
from waiting import PATIENCE

PYTHON = REPOSITORY / ".venv-triton/bin/python"
Field = tuple[int, int, int, str]
DESCRIPTORS = """
import json
from google.protobuf import descriptor_pb2, json_format
from tritonclient.grpc import model_config_pb2, service_pb2
files = descriptor_pb2.FileDescriptorSet()
for module in (service_pb2, model_config_pb2):
    module.DESCRIPTOR.CopyToProto(files.file.add())
print(json.dumps(json_format.MessageToDict(files)))
"""


def run(*arguments: str) -> dict[str, Any]:
    assert PYTHON.exists(), "tritonclient's environment is missing: `make test` creates it"
    ended = subprocess.run([PYTHON, *arguments], capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert ended.returncode == 0, ended.stderr
    found: dict[str, Any] = json.loads(ended.stdout)
    return found


@pytest.fixture(scope="module")
def responses(zoo: ServerProcess) -> dict[str, Any]:
    return run(str(Path(__file__).with_name("triton_calls.py")), zoo.target)


def test_server_and_model_state(responses: dict[str, Any]) -> None:
    assert [responses[key] for key in ("live", "ready", "model_ready", "unknown_ready")] == [True, True, True, False]
    assert responses["metadata"]["name"] == "medserve"
    assert responses["model_metadata"]["versions"] == ["1", "2"]
    assert responses["config"]["config"]["max_batch_size"] == 64
    assert {"name": "chest-xray", "version": "2", "state": "READY"} in responses["index"]["models"]


def test_inference(responses: dict[str, Any]) -> None:
    assert responses["infer"] == [[0, 1, 2], [3, 4, 5]]
    assert responses["strings"] == ["a", "ä", ""]
    assert responses["bfloat16"] == [[1.5, -2, 3]]
    assert responses["float16"] == [[0, 1, 2], [3, 4, 5]]
    assert responses["asynchronous"] == "async"


def test_model_without_inputs(responses: dict[str, Any]) -> None:
    assert responses["no_inputs"] == onnx_models.TABLE


def test_shapes_of_any_rank_and_empty_tensors(responses: dict[str, Any]) -> None:
    shapes = [[], [1], [3], [2, 3], [0], [0, 3], [3, 0], [1, 2, 3, 4]]
    assert responses["any_rank"] == responses["any_rank_strings"] == shapes
    assert responses["empty"] == [0, 3]


def test_stream(responses: dict[str, Any]) -> None:
    assert [response[0] for index, response in enumerate(responses["stream"]) if index != 2] == ["0", "1", "3", "4"]
    assert "is 'nothing'" in responses["stream"][2][0]


def test_statistics(responses: dict[str, Any]) -> None:
    (statistics,) = responses["statistics"]["model_stats"]
    assert int(statistics["inference_stats"]["success"]["count"]) >= 6


def test_errors(responses: dict[str, Any]) -> None:
    assert responses["load"] == responses["unload"] == "StatusCode.UNIMPLEMENTED"
    assert responses["wrong_name"] == "StatusCode.NOT_FOUND"
    assert responses["wrong_datatype"] == "StatusCode.INVALID_ARGUMENT"


def test_medserve_client_works_in_the_same_process(responses: dict[str, Any]) -> None:
    assert "chest-xray" in responses["ours"]


def test_server_runs_in_an_environment_with_tritonclient(repository: Path) -> None:
    """tritonclient requires protobuf 6; current grpcio-health-checking and grpcio-reflection require 7."""
    version = "import google.protobuf, json; print(json.dumps({'is': google.protobuf.__version__}))"
    assert run("-c", version)["is"].startswith("6.")
    flags = ("--transport", "grpcio", "--models", str(repository))
    with running_server(*flags, python=str(PYTHON)) as started, grpc.insecure_channel(started.target) as channel:
        found = run(str(Path(__file__).with_name("triton_calls.py")), started.target)
        assert found["infer"] == [[0, 1, 2], [3, 4, 5]]
        health = HealthStub(channel).Check(  # type: ignore[attr-defined]  # generated
            health_pb2.HealthCheckRequest(service="medserve.v1.PatientRisk")
        )
        assert health.status == health_pb2.HealthCheckResponse.SERVING
        described = DescriptorPool(ProtoReflectionDescriptorDatabase(channel))
        assert described.FindServiceByName("medserve.v1.PatientRisk").methods_by_name


def fields(message: DescriptorProto, prefix: str = "") -> dict[str, Field]:
    """Returns number, type, label and message type of every field, including nested ones."""
    found: dict[str, Field] = {
        f"{prefix}{message.name}.{field.name}": (field.number, field.type, field.label, field.type_name)
        for field in message.field
    }
    for nested in message.nested_type:
        found |= fields(nested, f"{prefix}{message.name}.")
    return found


def test_fields_have_the_numbers_and_types_of_triton() -> None:
    theirs: dict[str, Field] = {}
    for file in ParseDict(run("-c", DESCRIPTORS), FileDescriptorSet()).file:
        for message in file.message_type:
            theirs |= fields(message)
    ours: dict[str, Field] = {}
    for module in (grpc_service_pb2, model_config_pb2):
        for descriptor in module.DESCRIPTOR.message_types_by_name.values():
            message = DescriptorProto()
            descriptor.CopyToProto(message)
            ours |= fields(message)
    assert len(ours) > 100
    assert {name: theirs.get(name) for name in ours} == ours
