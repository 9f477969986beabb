"""REST calls have the same authorization, limits, metrics and access log as the corresponding gRPC method."""

import json
import re
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest

from calls.rest_client import RestClient, tensor
from medserve_proto.inference import grpc_service_pb2 as pb
from medserve_proto.inference.grpc_service_pb2_grpc import GRPCInferenceServiceStub
from medserve_proto.v1 import model_catalog_pb2 as catalog_pb
from medserve_proto.v1.model_catalog_pb2_grpc import ModelCatalogStub
from medserve_server.rest.answer import HTTP_STATUS
from medserve_server.security.auth import ADMIN, INFER, METADATA, PRIORITY, new_token
from samples import onnx_models
from servers.server_process import ServerProcess, running_server
from waiting import PATIENCE, wait_until

TIMES = re.compile(r'(request_id|\w+_seconds)="?[\w.e-]+"?')


@dataclass(frozen=True)
class Outcome:
    """Status of a call, and what the server recorded about it."""

    code: grpc.StatusCode
    message: str
    counted: dict[str, float]
    logged: str


@dataclass(frozen=True)
class Guarded:
    server: ServerProcess
    channel: grpc.Channel
    tokens: dict[str, str]
    log: Path

    def counters(self) -> dict[str, float]:
        """Returns all counters, except those of time."""
        lines = [
            line.rsplit(" ", 1)
            for line in self.server.metrics().splitlines()
            if line.startswith(("medserve_", "grpc_server_"))
        ]
        return {
            name: float(value)
            for name, value in lines
            if "_bucket" not in name and "seconds_sum" not in name and "_created" not in name
        }

    def note(self, call: Any) -> Outcome:  # noqa: ANN401
        before, lines = self.counters(), len(self.lines())
        code, message = call()
        wait_until(lambda: len(self.lines()) > lines, "a line in the access log")
        after = self.counters()
        changed = {name: value - before.get(name, 0) for name, value in after.items() if value != before.get(name, 0)}
        (line,) = self.lines()[lines:]
        return Outcome(code, message, changed, TIMES.sub("", line.partition("call ")[2]))

    def lines(self) -> list[str]:
        return [line for line in self.log.read_text().splitlines() if "medserve_server.access" in line]


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory, transport: str) -> Iterator[Guarded]:
    folder = tmp_path_factory.mktemp("guarded")
    onnx_models.save(folder / "models", "identity-fp32", onnx_models.identity("FP32", ["batch", 3]))
    kinds = (INFER, METADATA, ADMIN, f"{INFER},{PRIORITY}")
    made = {scopes: new_token(scopes.replace(",", "-"), scopes) for scopes in kinds}
    (folder / "tokens").write_text("".join(f"{line}\n" for _, line in made.values()))
    flags = (
        *("--transport", transport, "--models", str(folder / "models"), "--tokens", str(folder / "tokens")),
        *("--access-log", "--max-request-rows", "4", "--max-message-mib", "1", "--max-name-length", "40"),
    )
    with ExitStack() as stack:
        server = stack.enter_context(running_server(*flags, log=folder / "log"))
        channel = stack.enter_context(grpc.insecure_channel(server.target))
        yield Guarded(server, channel, {scopes: token for scopes, (token, _) in made.items()}, folder / "log")


def bearer(guarded: Guarded, scopes: str) -> list[tuple[str, str]]:
    return [("authorization", f"Bearer {guarded.tokens.get(scopes, scopes)}")] if scopes else []


def infer(rows: int = 1, model: str = "identity-fp32", **parameters: int) -> pb.ModelInferRequest:
    request = pb.ModelInferRequest(model_name=model, raw_input_contents=[bytes(12 * rows)])
    request.inputs.add(name="x", datatype="FP32", shape=[rows, 3])
    for name, value in parameters.items():
        request.parameters[name].int64_param = value
    return request


def over_grpc(guarded: Guarded, request: Any, scopes: str) -> tuple[grpc.StatusCode, str]:  # noqa: ANN401
    calls: dict[type, Any] = {
        pb.ModelInferRequest: GRPCInferenceServiceStub(guarded.channel).ModelInfer,
        pb.RepositoryModelLoadRequest: GRPCInferenceServiceStub(guarded.channel).RepositoryModelLoad,
        pb.ModelConfigRequest: GRPCInferenceServiceStub(guarded.channel).ModelConfig,
        catalog_pb.ListModelsRequest: ModelCatalogStub(guarded.channel).ListModels,
    }
    call = calls[type(request)].future(request, metadata=bearer(guarded, scopes), timeout=PATIENCE)
    return call.code(), call.details() or ""


def over_rest(guarded: Guarded, request: Any, scopes: str) -> tuple[grpc.StatusCode, str]:  # noqa: ANN401
    client = RestClient(guarded.server.http_url, dict(bearer(guarded, scopes)))
    match request:
        case pb.ModelInferRequest():
            rows = request.inputs[0].shape[0]
            parameters = {name: value.int64_param for name, value in request.parameters.items()}
            given = tensor("FP32", [rows, 3], [0] * rows * 3)
            reply = client.infer(request.model_name, given, parameters=parameters)
        case pb.RepositoryModelLoadRequest():
            reply = client.post(f"/v2/repository/models/{request.model_name}/load")
        case pb.ModelConfigRequest():
            reply = client.get(f"/v2/models/{request.name}/config")
        case _:
            reply = client.get("/v1/models")
    if reply.status == 200:
        return grpc.StatusCode.OK, ""
    error = json.loads(reply.body)["error"]
    if isinstance(error, dict):
        return grpc.StatusCode[error["status"]], error["message"]
    (code,) = [code for code in CODES if HTTP_STATUS[code] == reply.status]
    return code, error


CODES = [
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.UNAUTHENTICATED,
    grpc.StatusCode.PERMISSION_DENIED,
    grpc.StatusCode.NOT_FOUND,
    grpc.StatusCode.UNIMPLEMENTED,
]


CALLS: list[tuple[str, Any, str]] = [
    ("OK", infer(), INFER),
    ("OK", catalog_pb.ListModelsRequest(), METADATA),
    ("OK", pb.ModelConfigRequest(name="identity-fp32"), METADATA),
    ("UNAUTHENTICATED", infer(), ""),
    ("UNAUTHENTICATED", infer(), "c3RyYW5nZXItc3RyYW5nZXItc3RyYW5nZXItc3RyYW5"),
    ("UNAUTHENTICATED", catalog_pb.ListModelsRequest(), ""),
    ("PERMISSION_DENIED", infer(), METADATA),
    ("PERMISSION_DENIED", catalog_pb.ListModelsRequest(), INFER),
    ("PERMISSION_DENIED", pb.RepositoryModelLoadRequest(model_name="identity-fp32"), INFER),
    ("UNIMPLEMENTED", pb.RepositoryModelLoadRequest(model_name="identity-fp32"), ADMIN),
    ("PERMISSION_DENIED", infer(priority=1), INFER),
    ("OK", infer(priority=1), f"{INFER},{PRIORITY}"),
    ("NOT_FOUND", infer(model="nothing"), INFER),
    ("NOT_FOUND", pb.ModelConfigRequest(name="nothing"), METADATA),
    ("INVALID_ARGUMENT", infer(rows=5), INFER),
    ("INVALID_ARGUMENT", infer(model="n" * 41), INFER),
    ("INVALID_ARGUMENT", infer(timeout=-1), INFER),
]


@pytest.mark.parametrize(("code", "request_", "scopes"), CALLS, ids=range(len(CALLS)))
def test_rest_and_grpc_are_recorded_alike(guarded: Guarded, code: str, request_: Any, scopes: str) -> None:  # noqa: ANN401
    one = guarded.note(lambda: over_grpc(guarded, request_, scopes))
    other = guarded.note(lambda: over_rest(guarded, request_, scopes))
    assert one.code.name == code
    assert one.counted
    assert other == one


def test_missing_token_is_reported_in_www_authenticate(guarded: Guarded) -> None:
    reply = RestClient(guarded.server.http_url, {}).get("/v1/models")
    assert (reply.status, reply.headers["www-authenticate"]) == (401, "Bearer")


def test_probes_and_openapi_document_need_no_token(guarded: Guarded) -> None:
    client = RestClient(guarded.server.http_url, {})
    assert [client.get(path).status for path in ("/livez", "/readyz", "/openapi.json")] == [200] * 3


def test_token_is_checked_before_the_body(guarded: Guarded) -> None:
    """A missing token is reported before the body is checked."""
    client = RestClient(guarded.server.http_url, {})
    assert client.post("/v2/models/identity-fp32/infer", b"{").status == 401
    assert client.post("/v2/models/identity-fp32/infer", bytes(2 << 20)).status == 401


def test_call_with_invalid_body_is_logged(guarded: Guarded) -> None:
    client = RestClient(guarded.server.http_url, dict(bearer(guarded, INFER)))
    lines = len(guarded.lines())
    for body, status in ((b"{", 400), (bytes((1 << 20) + 1), 413)):
        assert client.post("/v2/models/identity-fp32/infer", body).status == status
    wait_until(lambda: len(guarded.lines()) == lines + 2)
    first, second = guarded.lines()[lines:]
    assert 'status="INVALID_ARGUMENT"' in first
    assert 'status="RESOURCE_EXHAUSTED"' in second
    assert all('client="infer" method="/inference.GRPCInferenceService/ModelInfer"' in line for line in (first, second))


def test_content_sent_by_clients_is_not_logged(guarded: Guarded) -> None:
    client = RestClient(guarded.server.http_url, {"X-Secret": "MARK-1"})
    client.get("/v1/MARK-2?patient=MARK-3")
    client.post("/v2/models/MARK-4/infer", b"MARK-5")
    assert "MARK" not in guarded.log.read_text()
