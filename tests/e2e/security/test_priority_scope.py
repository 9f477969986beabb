"""A priority above the default requires a separate scope, in unary calls and streams, on both transports."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue

import grpc
import pytest

from medserve_proto.inference import grpc_service_pb2 as pb
from medserve_proto.inference.grpc_service_pb2_grpc import GRPCInferenceServiceStub
from medserve_server.security.auth import new_token
from samples import onnx_models
from servers.model_folder import request
from servers.server_process import ServerProcess, running_server
from waiting import wait_until

OK, DENIED = grpc.StatusCode.OK, grpc.StatusCode.PERMISSION_DENIED
Metadata = tuple[tuple[str, str], ...]
LACKS = "client plain lacks the scope priority"


@dataclass(frozen=True)
class Guarded:
    server: ServerProcess
    stub: GRPCInferenceServiceStub
    tokens: Path
    lines: dict[str, str]
    metadata: dict[str, Metadata]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    onnx_models.save(folder, "a", onnx_models.add(1))
    return folder


@pytest.fixture(scope="module")
def guarded(models: Path, transport: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    made = {"plain": new_token("plain", "infer"), "urgent": new_token("urgent", "infer,priority")}
    tokens = tmp_path_factory.mktemp("guarded") / "tokens"
    tokens.write_text("\n".join(line for _, line in made.values()))
    flags = ("--models", str(models), "--transport", transport, "--tokens", str(tokens))
    with running_server(*flags) as server, grpc.insecure_channel(server.target) as channel:
        yield Guarded(
            server,
            GRPCInferenceServiceStub(channel),
            tokens,
            {name: line for name, (_, line) in made.items()},
            {name: (("authorization", f"Bearer {token}"),) for name, (token, _) in made.items()},
        )


def with_priority(priority: int | None, *, unsigned: bool = False) -> pb.ModelInferRequest:
    asked = request("a", 1.0)
    if priority is not None:
        number = pb.InferParameter(uint64_param=priority) if unsigned else pb.InferParameter(int64_param=priority)
        asked.parameters["priority"].CopyFrom(number)
    return asked


def refusals(guarded: Guarded) -> float:
    return guarded.server.sample('medserve_refused_total{reason="permission"}')


def ask(guarded: Guarded, client: str, asked: pb.ModelInferRequest) -> tuple[grpc.StatusCode, str]:
    call = guarded.stub.ModelInfer.future(asked, metadata=guarded.metadata[client], timeout=30)
    return call.code(), call.details() or ""


def test_high_priority_requires_the_scope(guarded: Guarded) -> None:
    before = refusals(guarded)
    for _ in range(3):  # regardless of the previous caller in the same server thread
        for unsigned in (False, True):
            assert ask(guarded, "urgent", with_priority(1, unsigned=unsigned))[0] is OK
            code, details = ask(guarded, "plain", with_priority(1, unsigned=unsigned))
            assert code is DENIED
            assert LACKS in details
        for priority in (None, 0, 2, 3, 2**62):
            assert ask(guarded, "plain", with_priority(priority))[0] is OK
            assert ask(guarded, "urgent", with_priority(priority))[0] is OK
    assert refusals(guarded) == before + 6


def test_stream_continues_after_a_request_without_permission(guarded: Guarded) -> None:
    before = refusals(guarded)
    asked = [with_priority(priority) for priority in (None, 1, 2, 1, 3)]
    errors = {
        client: [
            response.error_message
            for response in guarded.stub.ModelStreamInfer(iter(asked), metadata=guarded.metadata[client], timeout=30)
        ]
        for client in ("plain", "urgent")
    }
    assert [LACKS in error for error in errors["plain"]] == [False, True, False, True, False]
    assert errors["urgent"] == [""] * 5
    assert refusals(guarded) == before + 2


def test_open_stream_loses_a_revoked_scope(guarded: Guarded) -> None:
    asked: SimpleQueue[pb.ModelInferRequest | None] = SimpleQueue()
    stream = guarded.stub.ModelStreamInfer(iter(asked.get, None), metadata=guarded.metadata["urgent"], timeout=60)

    def refused() -> bool:
        asked.put(with_priority(1))
        return "client urgent lacks the scope priority" in next(stream).error_message

    assert not refused()
    lines = {**guarded.lines, "urgent": guarded.lines["urgent"].replace("infer,priority", "infer")}
    guarded.tokens.write_text("\n".join(lines.values()))
    wait_until(refused, "the tokens to be reloaded")
    guarded.tokens.write_text("\n".join(guarded.lines.values()))
    wait_until(lambda: not refused(), "the tokens to be reloaded")
    asked.put(None)


def test_every_client_may_set_priorities_without_tokens(models: Path, transport: str) -> None:
    with (
        running_server("--models", str(models), "--transport", transport) as server,
        grpc.insecure_channel(server.target) as channel,
    ):
        stub = GRPCInferenceServiceStub(channel)
        assert stub.ModelInfer(with_priority(1), timeout=30).model_name == "a"
        assert [response.error_message for response in stub.ModelStreamInfer(iter([with_priority(1)]), timeout=30)] == [
            ""
        ]
