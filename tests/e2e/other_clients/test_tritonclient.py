"""tritonclient, unmodified, against the real server; and its protocol, number by number, against ours."""

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
    assert PYTHON.exists(), "tritonclient's environment is missing: `make test` makes it"
    ended = subprocess.run([PYTHON, *arguments], capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert ended.returncode == 0, ended.stderr
    found: dict[str, Any] = json.loads(ended.stdout)
    return found


@pytest.fixture(scope="module")
def answers(zoo: ServerProcess) -> dict[str, Any]:
    return run(str(Path(__file__).with_name("triton_calls.py")), zoo.target)


def test_server_and_model_state(answers: dict[str, Any]) -> None:
    assert [answers[key] for key in ("live", "ready", "model_ready", "unknown_ready")] == [True, True, True, False]
    assert answers["metadata"]["name"] == "medserve"
    assert answers["model_metadata"]["versions"] == ["1", "2"]
    assert answers["config"]["config"]["max_batch_size"] == 64
    assert {"name": "chest-xray", "version": "2", "state": "READY"} in answers["index"]["models"]


def test_inference(answers: dict[str, Any]) -> None:
    assert answers["infer"] == [[0, 1, 2], [3, 4, 5]]
    assert answers["strings"] == ["a", "ä", ""]
    assert answers["bfloat16"] == [[1.5, -2, 3]]
    assert answers["float16"] == [[0, 1, 2], [3, 4, 5]]
    assert answers["asynchronous"] == "async"


def test_a_model_without_inputs(answers: dict[str, Any]) -> None:
    assert answers["no_inputs"] == onnx_models.TABLE


def test_shapes_of_any_rank_and_empty_tensors(answers: dict[str, Any]) -> None:
    shapes = [[], [1], [3], [2, 3], [0], [0, 3], [3, 0], [1, 2, 3, 4]]
    assert answers["any_rank"] == answers["any_rank_strings"] == shapes
    assert answers["empty"] == [0, 3]


def test_stream(answers: dict[str, Any]) -> None:
    assert [answer[0] for index, answer in enumerate(answers["stream"]) if index != 2] == ["0", "1", "3", "4"]
    assert "is 'nothing'" in answers["stream"][2][0]


def test_statistics(answers: dict[str, Any]) -> None:
    (statistics,) = answers["statistics"]["model_stats"]
    assert int(statistics["inference_stats"]["success"]["count"]) >= 6


def test_errors(answers: dict[str, Any]) -> None:
    assert answers["load"] == answers["unload"] == "StatusCode.UNIMPLEMENTED"
    assert answers["wrong_name"] == "StatusCode.NOT_FOUND"
    assert answers["wrong_datatype"] == "StatusCode.INVALID_ARGUMENT"


def test_our_client_lives_in_the_same_process(answers: dict[str, Any]) -> None:
    assert "chest-xray" in answers["ours"]


def test_the_server_runs_in_an_environment_with_tritonclient(repository: Path) -> None:
    """Which brings protobuf 6, where grpcio-health-checking and grpcio-reflection have gone on to 7."""
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
    """Number, type, label and message type of every field, nested ones too."""
    found: dict[str, Field] = {
        f"{prefix}{message.name}.{field.name}": (field.number, field.type, field.label, field.type_name)
        for field in message.field
    }
    for nested in message.nested_type:
        found |= fields(nested, f"{prefix}{message.name}.")
    return found


def test_every_field_has_tritons_number_and_type() -> None:
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
