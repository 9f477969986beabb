"""Errors reveal nothing about other models to a client whose token does not allow listing them."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.message_factory import GetMessageClass
from grpc_health.v1 import health_pb2

from medserve_proto.inference import grpc_service_pb2
from medserve_proto.v1 import image_classification_pb2, image_segmentation_pb2, model_catalog_pb2, patient_risk_pb2
from medserve_server.security.auth import ADMIN, INFER, METADATA, OPEN, SCOPE_OF_METHOD, new_token
from samples import onnx_models
from servers.server_process import running_server
from waiting import PATIENCE, wait_until

BOTH = f"{INFER},{METADATA}"
MODELS = {"tumor-stage": ["41", "7001"], "tumor-grade": ["1"]}
SECRETS = [*MODELS, "7001"]
NAMES = ["tumor-stag", "tumor-stage2", "TUMOR-STAGE", "tumor", "", "\u00fc", "../tumor-stage", "x" * 256]
VERSIONS = [("tumor-stage", "40"), ("tumor-stage", "x"), ("tumor-grade", "2"), ("tumor-grade", "\u00fc")]
CONTRACTS = (
    image_classification_pb2,
    image_segmentation_pb2,
    patient_risk_pb2,
    model_catalog_pb2,
    grpc_service_pb2,
)
METHODS = {
    f"/{service.full_name}/{method.name}": method
    for contract in CONTRACTS
    for service in contract.DESCRIPTOR.services_by_name.values()
    for method in service.methods
}
INFERENCE = [method for method in METHODS if SCOPE_OF_METHOD[method] == INFER]
STREAMS = {path for path, method in METHODS.items() if method.client_streaming}


@dataclass
class Server:
    channel: grpc.Channel
    folder: Path
    tokens: dict[str, str]

    def call(self, path: str, message: bytes, scopes: str) -> tuple[grpc.StatusCode, bytes]:
        """Calls a method; returns its status and all received bytes: responses, error message and metadata."""
        metadata = [("authorization", f"Bearer {self.tokens[scopes]}")] if scopes else []
        came: list[bytes] = []
        if path in STREAMS:
            stream: Any = self.channel.stream_stream(path)
            call = stream(iter([message]), metadata=metadata, timeout=PATIENCE)
            with contextlib.suppress(grpc.RpcError):  # its status and details are read below
                came += list(call)
        else:
            unary: Any = self.channel.unary_unary(path)
            call = unary.future(message, metadata=metadata, timeout=PATIENCE)
            if call.exception() is None:
                came.append(call.result())
        came.append(call.details().encode())
        for key, value in call.trailing_metadata():
            came += [key.encode(), value if isinstance(value, bytes) else value.encode()]
        return call.code(), b"\n".join(came)


@pytest.fixture(scope="module")
def server(transport: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("scopes")
    for name, versions in MODELS.items():
        for version in versions:
            onnx_models.save(folder / "models", name, onnx_models.identity("FP32", ["batch", 3]), int(version))
    made = {scopes: new_token(scopes.replace(",", "-"), scopes) for scopes in (INFER, METADATA, BOTH, ADMIN)}
    (folder / "tokens").write_text("".join(f"{line}\n" for _, line in made.values()))
    with (
        running_server(
            *("--transport", transport, "--models", str(folder / "models"), "--tokens", str(folder / "tokens"))
        ) as started,
        grpc.insecure_channel(started.target) as channel,
    ):
        yield Server(channel, folder, {scopes: token for scopes, (token, _) in made.items()})


def request(path: str, name: str, version: str = "") -> bytes:
    message_type = METHODS[path].input_type
    prefix = "model_" if "model_name" in message_type.fields_by_name else ""
    fields = {f"{prefix}name": name, f"{prefix}version": version}
    known = {field: value for field, value in fields.items() if field in message_type.fields_by_name}
    return GetMessageClass(message_type)(**known).SerializeToString()


def revealed(received: bytes) -> list[str]:
    return [secret for secret in SECRETS if secret.encode() in received]


@pytest.mark.parametrize("path", INFERENCE)
def test_error_about_unknown_model_or_version_reveals_no_other(server: Server, path: str) -> None:
    for name in NAMES:
        _, received = server.call(path, request(path, name), INFER)
        assert [secret for secret in revealed(received) if secret not in name] == [], name
    for name, version in VERSIONS:
        _, received = server.call(path, request(path, name, version), INFER)
        assert [secret for secret in revealed(received) if secret != name] == [], (name, version)
        assert b"41" not in received


@pytest.mark.parametrize("path", INFERENCE)
def test_error_lists_models_for_clients_that_may_list_them(server: Server, path: str) -> None:
    _, received = server.call(path, request(path, "tumor-stag"), BOTH)
    assert b"did you mean tumor-stage?" in received
    assert b"the served models are tumor-grade, tumor-stage" in received
    _, received = server.call(path, request(path, "tumor-stage", "40"), BOTH)
    assert b"the versions of tumor-stage are 41, 7001" in received


def test_error_is_the_same_for_similar_and_dissimilar_names(server: Server) -> None:
    path = "/inference.GRPCInferenceService/ModelInfer"
    details = set()
    for name in ("tumor-stagf", "tumor-gradf", "something-x"):
        unary: Any = server.channel.unary_unary(path)
        metadata = [("authorization", f"Bearer {server.tokens[INFER]}")]
        with pytest.raises(grpc.RpcError) as caught:
            unary(request(path, name), metadata=metadata, timeout=PATIENCE)
        details.add(str(caught.value.details()).replace(name, ""))
    assert len(details) == 1


def test_no_method_reveals_more_than_the_scopes_allow(server: Server) -> None:
    """For every method, with an empty request and with the name of an unknown model."""
    for path, scopes in product(SCOPE_OF_METHOD, ["", INFER, ADMIN]):
        messages = [b"", *([request(path, "tumor")] if path in METHODS else [])]
        for message in messages:
            if path.endswith("/Watch"):
                continue  # the call does not end
            code, received = server.call(path, message, scopes)
            assert revealed(received) == [], (path, scopes)
            if SCOPE_OF_METHOD[path] not in {OPEN, scopes}:
                refused = grpc.StatusCode.PERMISSION_DENIED if scopes else grpc.StatusCode.UNAUTHENTICATED
                assert code is refused, (path, scopes)


def test_health_does_not_reveal_models(server: Server) -> None:
    code, received = server.call("/grpc.health.v1.Health/List", b"", "")
    assert code is grpc.StatusCode.OK
    assert revealed(received) == []
    for name in (*MODELS, "tumor"):
        message = health_pb2.HealthCheckRequest(service=name).SerializeToString()
        code, received = server.call("/grpc.health.v1.Health/Check", message, "")
        assert code is grpc.StatusCode.NOT_FOUND
        assert revealed(received) == []


def test_open_stream_reveals_less_after_scopes_are_revoked(server: Server) -> None:
    token, line = new_token("fickle", BOTH)
    server.tokens["fickle"] = token
    tokens = server.folder / "tokens"
    before = tokens.read_text()
    path = "/inference.GRPCInferenceService/ModelStreamInfer"
    listing = "/medserve.v1.ModelCatalog/ListModels"

    def requests() -> Iterator[bytes]:
        yield request(path, "tumor")
        tokens.write_text(f"{before}{line.replace(METADATA, ADMIN)}\n")
        wait_until(lambda: server.call(listing, b"", "fickle")[0] is grpc.StatusCode.PERMISSION_DENIED)
        yield request(path, "tumor")

    try:
        tokens.write_text(f"{before}{line}\n")
        wait_until(lambda: server.call(listing, b"", "fickle")[0] is grpc.StatusCode.OK)
        stream: Any = server.channel.stream_stream(path)
        first, second = stream(requests(), metadata=[("authorization", f"Bearer {token}")], timeout=PATIENCE)
        assert revealed(first) == list(MODELS)
        assert revealed(second) == []
    finally:
        tokens.write_text(before)
