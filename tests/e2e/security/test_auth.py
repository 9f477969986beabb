"""Tokens and scopes on the real server, over both transports."""

import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import grpc
import numpy as np
import pytest
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from descriptors import no_descriptors
from medserve_client import Client, PermissionDeniedError, UnauthenticatedError
from medserve_proto.inference import grpc_service_pb2 as pb
from medserve_proto.inference.grpc_service_pb2_grpc import GRPCInferenceServiceStub
from medserve_server.security.auth import new_token
from samples import onnx_models
from servers.server_process import ServerProcess, environment, refusal, running_server
from waiting import PATIENCE, wait_until

STRANGER = "c3RyYW5nZXItc3RyYW5nZXItc3RyYW5nZXItc3RyYW5"


def make_token(*arguments: str) -> tuple[str, str]:
    """A token and its line, from the command that makes them."""
    made = subprocess.run(
        [sys.executable, "-m", "medserve_server", "token", *arguments],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=True,
    )
    return made.stderr.strip(), made.stdout


@dataclass
class Guarded:
    """A server with tokens."""

    server: ServerProcess
    folder: Path
    tokens: dict[str, str]
    lines: dict[str, str]

    @property
    def log(self) -> str:
        return (self.folder / "log").read_text()

    def write(self, text: str) -> None:
        (self.folder / "tokens.txt").write_text(text)

    def restore(self) -> None:
        self.write("".join(self.lines.values()))
        unknown = grpc.StatusCode.UNAUTHENTICATED
        wait_until(lambda: all(self.code(name) is not unknown for name in self.tokens))

    def code(self, name: str) -> grpc.StatusCode:
        """How the server answers a call that needs `infer`."""
        return code_of(self.server.target, *bearer(self.tokens.get(name, STRANGER)))


def bearer(token: str) -> tuple[tuple[str, str], ...]:
    return (("authorization", f"Bearer {token}"),)


def infer_request(name: str = "identity", rows: int = 1) -> pb.ModelInferRequest:
    tensor = pb.ModelInferRequest.InferInputTensor(name="x", datatype="FP32", shape=[rows, 3])
    contents = np.zeros((rows, 3), np.float32).tobytes()
    return pb.ModelInferRequest(model_name=name, inputs=[tensor], raw_input_contents=[contents])


def code_of(target: str, *metadata: tuple[str, str | bytes], rows: int = 1) -> grpc.StatusCode:
    with grpc.insecure_channel(target) as channel:
        call = GRPCInferenceServiceStub(channel).ModelInfer.future(
            infer_request(rows=rows), metadata=metadata, timeout=PATIENCE
        )
        code: grpc.StatusCode = call.code()
        return code


@pytest.fixture(scope="module")
def guarded(transport: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    folder = tmp_path_factory.mktemp("guarded")
    onnx_models.save(folder / "models", "identity", onnx_models.identity("FP32", ["batch", 3]))
    made = {
        "ward": make_token("ward"),
        "sender": new_token("sender", "infer"),
        "monitor": new_token("monitor", "metadata"),
        "operator": new_token("operator", "infer,metadata,admin"),
    }
    lines = {name: f"{line.strip()}\n" for name, (_, line) in made.items()}
    (folder / "tokens.txt").write_text("# clients\n\n" + "".join(lines.values()))
    (folder / "metrics.token").write_text("scrape-me\n")
    with running_server(
        *("--transport", transport, "--models", str(folder / "models"), "--max-message-mib", "1", "--require-auth"),
        *("--tokens", str(folder / "tokens.txt"), "--metrics-token-file", str(folder / "metrics.token")),
        log=folder / "log",
    ) as server:
        yield Guarded(server, folder, {name: token for name, (token, _) in made.items()}, lines)


@pytest.mark.parametrize(
    "metadata",
    [
        [],
        bearer(STRANGER),
        bearer(""),
        [("authorization", STRANGER)],
        [("authorization", "Basic d2FyZDp3YXJk")],
        [("authorization-bin", b"Bearer x")],
        [*bearer(STRANGER), *bearer(STRANGER)],
    ],
    ids=["none", "unknown", "empty", "no scheme", "another scheme", "bytes", "two"],
)
def test_who_has_no_known_token_is_kept_out(guarded: Guarded, metadata: list[tuple[str, str | bytes]]) -> None:
    assert code_of(guarded.server.target, *metadata) is grpc.StatusCode.UNAUTHENTICATED


def test_a_known_token_next_to_another_is_rejected(guarded: Guarded) -> None:
    both = [*bearer(guarded.tokens["ward"]), *bearer(STRANGER)]
    assert code_of(guarded.server.target, *both) is grpc.StatusCode.UNAUTHENTICATED


def test_a_stranger_is_refused_before_the_message_is_looked_at(guarded: Guarded) -> None:
    assert code_of(guarded.server.target, rows=200_000) is grpc.StatusCode.UNAUTHENTICATED
    own = bearer(guarded.tokens["ward"])
    assert code_of(guarded.server.target, *own, rows=200_000) is grpc.StatusCode.RESOURCE_EXHAUSTED


def test_the_client_sends_its_token(guarded: Guarded) -> None:
    with Client(guarded.server.target, token=guarded.tokens["ward"]) as client:
        assert [model.name for model in client.models()] == ["identity"]
    with Client(guarded.server.target, token=STRANGER) as client, pytest.raises(UnauthenticatedError):
        client.models()
    with Client(guarded.server.target) as client, pytest.raises(UnauthenticatedError, match="a token is required"):
        client.models()


def test_scopes_decide(guarded: Guarded) -> None:
    assert guarded.code("sender") is grpc.StatusCode.OK
    assert guarded.code("monitor") is grpc.StatusCode.PERMISSION_DENIED
    with Client(guarded.server.target, token=guarded.tokens["monitor"]) as client:
        assert client.models()
    with (
        Client(guarded.server.target, token=guarded.tokens["sender"]) as client,
        pytest.raises(PermissionDeniedError, match="client sender lacks the scope metadata"),
    ):
        client.models()


def test_loading_models_needs_admin(guarded: Guarded) -> None:
    with grpc.insecure_channel(guarded.server.target) as channel:
        stub = GRPCInferenceServiceStub(channel)
        codes = {}
        for name in ("ward", "operator"):
            call = stub.RepositoryModelLoad.future(
                pb.RepositoryModelLoadRequest(model_name="none"),
                metadata=bearer(guarded.tokens[name]),
                timeout=PATIENCE,
            )
            codes[name] = call.code()
    assert codes["ward"] is grpc.StatusCode.PERMISSION_DENIED
    assert codes["operator"] not in {grpc.StatusCode.PERMISSION_DENIED, grpc.StatusCode.UNAUTHENTICATED}


def test_health_is_open_and_reflection_is_not(guarded: Guarded) -> None:
    with Client(guarded.server.target) as client:
        assert client.health().name == "SERVING"
    with grpc.insecure_channel(guarded.server.target) as channel:
        ask: Any = reflection_pb2_grpc.ServerReflectionStub(channel).ServerReflectionInfo
        question = reflection_pb2.ServerReflectionRequest(list_services="")
        assert ask(iter([question]), timeout=PATIENCE).code() is grpc.StatusCode.UNAUTHENTICATED
        token = bearer(guarded.tokens["monitor"])
        assert next(ask(iter([question]), metadata=token, timeout=PATIENCE)).list_services_response.service


def test_a_revoked_token_ends_calls_and_streams_and_leaves_others_alone(guarded: Guarded) -> None:
    def requests() -> Iterator[pb.ModelInferRequest]:
        yield infer_request()
        wait_until(lambda: guarded.code("sender") is grpc.StatusCode.UNAUTHENTICATED)
        yield infer_request()

    try:
        with grpc.insecure_channel(guarded.server.target) as channel:
            stub = GRPCInferenceServiceStub(channel)
            stream = stub.ModelStreamInfer(requests(), metadata=bearer(guarded.tokens["sender"]), timeout=PATIENCE)
            assert not next(stream).error_message
            guarded.write(guarded.lines["ward"])
            with pytest.raises(grpc.RpcError) as caught:
                next(stream)
        assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED
        assert guarded.code("ward") is grpc.StatusCode.OK
    finally:
        guarded.restore()


def test_a_token_that_is_revoked_while_no_file_can_be_read_ends_as_soon_as_one_can(guarded: Guarded) -> None:
    def code(name: str) -> grpc.StatusCode:
        call = stub.ModelInfer.future(infer_request(), metadata=bearer(guarded.tokens[name]), timeout=20)
        found: grpc.StatusCode = call.code()
        return found

    def failures() -> int:
        """Of reading the tokens; a scrape of Envoy's counters may fail meanwhile, too."""
        lines = guarded.log.splitlines()
        return sum("tokens.txt" in line and "Too many open files" in line for line in lines)

    def is_told() -> bool:
        assert code("ward") is grpc.StatusCode.OK
        return failures() > told

    told = failures()
    (pid,) = guarded.server.workers()
    try:
        with grpc.insecure_channel(guarded.server.target) as channel:
            stub = GRPCInferenceServiceStub(channel)
            assert code("sender") is grpc.StatusCode.OK
            with no_descriptors(pid):
                guarded.write(guarded.lines["ward"])
                wait_until(is_told, seconds=20)
                assert code("sender") is grpc.StatusCode.OK, "what was read before stays in force"
            wait_until(lambda: code("sender") is grpc.StatusCode.UNAUTHENTICATED, seconds=20)
            assert code("ward") is grpc.StatusCode.OK
        assert failures() == told + 1, "a failure that lasts is logged once"
    finally:
        guarded.restore()


@pytest.mark.parametrize("damage", ["ward infer,metadata", "ward all 00", "ward infer " + "x" * 64, "\0", None])
def test_a_broken_file_changes_nothing_and_is_told(guarded: Guarded, damage: str | None) -> None:
    told = guarded.log.count("cannot be reloaded")
    if damage is None:
        (guarded.folder / "tokens.txt").unlink()
    else:
        guarded.write(damage)

    def is_told() -> bool:
        assert guarded.code("stranger") is grpc.StatusCode.UNAUTHENTICATED
        return guarded.log.count("cannot be reloaded") > told

    try:
        wait_until(is_told)
        assert guarded.code("ward") is grpc.StatusCode.OK
    finally:
        guarded.restore()


def test_an_empty_file_rejects_every_token(guarded: Guarded) -> None:
    try:
        guarded.write("# all are gone\n")
        wait_until(lambda: guarded.code("ward") is grpc.StatusCode.UNAUTHENTICATED)
        assert "all calls that require one are refused" in guarded.log
    finally:
        guarded.restore()


def scrape(guarded: Guarded, token: str | None) -> str:
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    with urlopen(Request(guarded.server.metrics_url, headers=headers), timeout=PATIENCE) as response:  # noqa: S310 - ours
        text: str = response.read().decode()
        return text


@pytest.mark.parametrize("token", [None, "wrong", "scrape-me-not"])
def test_metrics_ask_for_their_token(guarded: Guarded, token: str | None) -> None:
    with pytest.raises(HTTPError) as caught:
        scrape(guarded, token)
    caught.value.close()
    assert caught.value.code == 401


def test_probes_need_no_token(guarded: Guarded) -> None:
    assert guarded.server.page("/livez") == (200, "ok\n")
    assert guarded.server.page("/readyz") == (200, "ok\n")


def test_refusals_are_counted_and_tokens_are_nowhere(guarded: Guarded) -> None:
    def count(reason: str) -> float:
        start = f'medserve_refused_total{{reason="{reason}"}}'
        (line,) = [line for line in scrape(guarded, "scrape-me").splitlines() if line.startswith(start)]
        return float(line.rsplit(" ", 1)[1])

    before = count("unauthenticated"), count("permission")
    assert guarded.code("stranger") is grpc.StatusCode.UNAUTHENTICATED
    assert guarded.code("monitor") is grpc.StatusCode.PERMISSION_DENIED
    assert (count("unauthenticated"), count("permission")) == (before[0] + 1, before[1] + 1)
    told = guarded.log + scrape(guarded, "scrape-me")
    for secret in (*guarded.tokens.values(), *(line.split()[2] for line in guarded.lines.values()), STRANGER):
        assert secret not in told


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("ward infer", ":1: has 2 words, expected three"),
        ("\nward all " + "0" * 64, ":2: a scope is not one of infer, metadata, admin"),
        ("../ward infer " + "0" * 64, "the name must consist of"),
        ("ward infer secret-token", "not a SHA-256 digest"),
        (f"a infer {'0' * 64}\nb infer {'0' * 64}", "two lines have the same token"),
    ],
)
def test_a_file_that_is_wrong_at_the_start_is_named(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "tokens").write_text(text)
    told = refusal("--tokens", str(tmp_path / "tokens"))
    assert words in told
    assert "secret-token" not in told


@pytest.mark.parametrize("flag", ["--tokens", "--metrics-token-file"])
def test_a_file_that_is_not_there_is_named(tmp_path: Path, transport: str, flag: str) -> None:
    told = refusal(flag, str(tmp_path / "nowhere"), "--transport", transport)
    assert f"{tmp_path}/nowhere: No such file" in told


def test_a_wrong_name_or_scope_makes_no_token() -> None:
    for arguments in (["a b"], ["ward", "--scopes", "root"]):
        with pytest.raises(subprocess.CalledProcessError):
            make_token(*arguments)
