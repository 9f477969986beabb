"""Files of tokens, and the table of scopes, which contains every method of the server."""

import sys
from pathlib import Path

import pytest
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2

from medserve_server.config import SettingsError
from medserve_server.errors import PermissionDenied
from medserve_server.process.cli import main
from medserve_server.process.lifecycle import CONTRACTS
from medserve_server.security.auth import OPEN, PRIORITY, SCOPE_OF_METHOD, SCOPES, Tokens, new_token

METHODS = {
    f"/{service.full_name}/{method.name}"
    for contract in (*CONTRACTS, health_pb2, reflection_pb2)
    for service in contract.DESCRIPTOR.services_by_name.values()
    for method in service.methods
} | {"/grpc.reflection.v1.ServerReflection/ServerReflectionInfo"}


def test_every_method_has_a_scope_and_no_scope_is_unused() -> None:
    assert set(SCOPE_OF_METHOD) == METHODS
    assert set(SCOPE_OF_METHOD.values()) == {OPEN, *SCOPES} - {PRIORITY}


def test_only_health_requires_no_scope() -> None:
    assert {method for method, scope in SCOPE_OF_METHOD.items() if scope == OPEN} == {
        method for method in METHODS if method.startswith("/grpc.health.v1.Health/")
    }


def test_a_method_without_a_scope_requires_admin(tmp_path: Path) -> None:
    token, line = new_token("ward", "infer,metadata")
    (tmp_path / "tokens").write_text(line)
    tokens = Tokens(tmp_path / "tokens")
    with pytest.raises(PermissionDenied, match="scope admin"):
        tokens.client("/medserve.v1.New/Method", [("authorization", f"Bearer {token}")])


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
def test_invalid_file_is_reported(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "tokens"
    path.write_text(text)
    with pytest.raises(SettingsError) as caught:
        Tokens(path)
    assert str(caught.value).startswith(f"{path}:")
    assert words in str(caught.value)
    assert "secret-token" not in str(caught.value)


def test_missing_file_is_reported(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=f"^{tmp_path}/nowhere: No such file"):
        Tokens(tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (["a b"], "'a b' is not a valid name; use at most 64 letters"),
        (["ward", "--scopes", "root"], "--scopes root: expected one or more of infer,metadata,admin,priority"),
    ],
)
def test_no_token_is_created_for_an_invalid_name_or_scope(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], arguments: list[str], error: str
) -> None:
    monkeypatch.setattr(sys, "argv", ["medserve-server", "token", *arguments])
    with pytest.raises(SystemExit, match=f"^medserve-server token: {error}"):
        main()
    assert capsys.readouterr() == ("", "")
