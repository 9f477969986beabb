"""Calls every method that reflection lists: none fails with an internal error."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.descriptor_pool import DescriptorPool
from grpc_health.v1 import health_pb2
from grpc_health.v1.health_pb2_grpc import HealthStub
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

from samples import onnx_models
from servers.model_folder import EXPLICIT
from servers.server_process import ServerProcess, running_server
from waiting import PATIENCE

SERVING = health_pb2.HealthCheckResponse.SERVING
SERVICES = {
    "medserve.v1.ImageClassification",
    "medserve.v1.ImageSegmentation",
    "medserve.v1.PatientRisk",
    "medserve.v1.ModelCatalog",
    "inference.GRPCInferenceService",
}
PAYLOADS = {
    "empty": b"",
    "unknown fields": b"\xf8\x7f\x01",
    "text": b"\x0a\x03abc\x12\x03abc\x1a\x03abc",
    "numbers": b"\x08\x01\x10\x01\x18\x01",
    "messages": b"\x0a\x00\x12\x00\x1a\x00\x22\x00\x2a\x00\x32\x00\x3a\x00",
    "no message": b"\xff\xff",
    "cut off": b"\x0a\xff\x01abc",
    "no UTF-8": b"\x0a\x02\xff\xfe",
}
SENSIBLE = {
    grpc.StatusCode.OK,
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.NOT_FOUND,
    grpc.StatusCode.FAILED_PRECONDITION,
    grpc.StatusCode.UNIMPLEMENTED,
}


@pytest.fixture(scope="module", params=[(), EXPLICIT], ids=["none", "explicit"])
def watched(
    transport: str, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[ServerProcess, Path]]:
    folder = tmp_path_factory.mktemp("methods")
    onnx_models.save(folder / "models", "identity", onnx_models.identity("FP32", ["batch", 3]))
    flags = ("--transport", transport, "--models", str(folder / "models"), "--log-level", "warning", *request.param)
    with running_server(*flags, log=folder / "log") as server:
        yield server, folder / "log"


def methods(channel: grpc.Channel) -> list[MethodDescriptor]:
    database = ProtoReflectionDescriptorDatabase(channel)
    pool = DescriptorPool(database)
    return [method for name in database.get_services() for method in pool.FindServiceByName(name).methods]


def code_of_call(channel: grpc.Channel, method: MethodDescriptor, payload: bytes) -> grpc.StatusCode:
    """Returns the status of a call; OK for a stream that stays open, once a response has arrived."""
    kinds: dict[tuple[bool, bool], Any] = {
        (False, False): channel.unary_unary,
        (False, True): channel.unary_stream,
        (True, False): channel.stream_unary,
        (True, True): channel.stream_stream,
    }
    call = kinds[method.client_streaming, method.server_streaming](
        f"/{method.containing_service.full_name}/{method.name}"
    )
    question = iter([payload]) if method.client_streaming else payload
    try:
        if not method.server_streaming:
            call(question, timeout=PATIENCE)
            return grpc.StatusCode.OK
        responses = call(question, timeout=PATIENCE)
        for _ in responses:
            if not method.client_streaming:
                responses.cancel()
                return grpc.StatusCode.OK
    except grpc.RpcError as error:
        code: grpc.StatusCode = error.code()
        return code
    return grpc.StatusCode.OK


@pytest.mark.parametrize("payload", PAYLOADS)
def test_no_method_returns_an_internal_error(watched: tuple[ServerProcess, Path], payload: str) -> None:
    server, log = watched
    with grpc.insecure_channel(server.target) as channel:
        found = {method.full_name: code_of_call(channel, method, PAYLOADS[payload]) for method in methods(channel)}
    assert {name.rpartition(".")[0] for name in found} >= {*SERVICES, "grpc.health.v1.Health"}
    assert {name: code for name, code in found.items() if code not in SENSIBLE} == {}
    assert log.read_text() == ""


def test_health_lists_server_and_services(watched: tuple[ServerProcess, Path]) -> None:
    with grpc.insecure_channel(watched[0].target) as channel:
        stub: Any = HealthStub(channel)
        listed = stub.List(health_pb2.HealthListRequest(), timeout=PATIENCE).statuses  # type: ignore[attr-defined]
        assert {name: state.status for name, state in listed.items()} == dict.fromkeys(["", *SERVICES], SERVING)
        for name, state in listed.items():
            assert stub.Check(health_pb2.HealthCheckRequest(service=name), timeout=PATIENCE) == state
