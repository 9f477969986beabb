"""Tokens: their file, the grants of their clients, and what is refused."""

import logging
import re
from hashlib import sha256
from pathlib import Path

import pytest

from medserve_server import file_reloader
from medserve_server.config import SettingsError
from medserve_server.errors import PermissionDenied, Unauthenticated
from medserve_server.security.auth import (
    ANYONE,
    NO_GRANT,
    Metadata,
    Tokens,
    check_priority,
    new_token,
    read_tokens,
)

MODEL_INFER = "/inference.GRPCInferenceService/ModelInfer"
DIGEST = "0" * 63 + "1"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "tokens"


def test_a_token_grants_the_client_and_scopes_of_its_line(path: Path) -> None:
    made = [
        new_token("ward", "infer"),
        new_token("ward", "infer,metadata"),
        new_token("Clinic-2.a_b", "priority,infer"),
    ]
    (first, first_line), (second, second_line), (third, third_line) = made
    name, scopes, digest = third_line.split()
    path.write_text(f"# clients\n\n{first_line}  # until May\n{second_line}\n  {name}\t{scopes} {digest.upper()}#\n")
    tokens = Tokens(path)
    for token, client, granted, lists_models in (
        (first, "ward", {"infer"}, False),
        (second, "ward", {"infer", "metadata"}, True),
        (third, "Clinic-2.a_b", {"infer", "priority"}, False),
    ):
        for scheme in ("Bearer", "bearer"):
            metadata: Metadata = [("other", "x"), ("authorization", f"{scheme} {token}"), ("trace-bin", b"x")]
            grant = tokens.client(MODEL_INFER, metadata)
            assert (grant.client, set(grant.scopes), grant.lists_models) == (client, granted, lists_models)
            assert grant.digest == sha256(token.encode()).digest()


def test_a_change_of_the_file_takes_effect(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(file_reloader, "POLL_INTERVAL", 0.0)
    (revoked, old_line), (added, new_line) = new_token("ward", "infer"), new_token("other", "infer")
    path.write_text(old_line)
    tokens = Tokens(path)
    path.write_text(new_line)
    assert tokens.client(MODEL_INFER, [("authorization", f"Bearer {added}")]).client == "other"
    with pytest.raises(Unauthenticated):
        tokens.client(MODEL_INFER, [("authorization", f"Bearer {revoked}")])


def test_a_method_without_access_control_needs_no_token(path: Path) -> None:
    path.write_text(new_token("ward", "infer")[1])
    assert Tokens(path).client("/grpc.health.v1.Health/Check", []) is NO_GRANT


def test_a_client_without_the_scope_of_a_method_is_refused(path: Path) -> None:
    token, line = new_token("ward", "metadata,admin,priority")
    path.write_text(line)
    with pytest.raises(PermissionDenied) as caught:
        Tokens(path).client(MODEL_INFER, [("authorization", f"Bearer {token}")])
    assert caught.value.message == f"client ward lacks the scope infer, which {MODEL_INFER} requires"


def test_a_missing_or_unknown_token_is_refused(path: Path) -> None:
    token, line = new_token("ward", "infer")
    path.write_text(line)
    tokens = Tokens(path)
    right = ("authorization", f"Bearer {token}")
    without: list[Metadata] = [
        [],
        [("Authorization", "x"), ("token", token)],
        [right, right],  # which one counts is unclear
        [("authorization", f"Bearer {token}".encode())],
        [("authorization", token)],
        [("authorization", f"Basic {token}")],
        [("authorization", "Bearer")],
        [("authorization", "Bearer ")],
    ]
    for metadata in without:
        with pytest.raises(Unauthenticated) as caught:
            tokens.client(MODEL_INFER, metadata)
        assert caught.value.message == ("a token is required; send it as the metadata `authorization: Bearer TOKEN`"), (
            metadata
        )
    for wrong in (token[:-1], f" {token}", f"{token} x", sha256(token.encode()).hexdigest(), "\N{SNOWMAN}"):
        with pytest.raises(Unauthenticated) as caught:
            tokens.client(MODEL_INFER, [("authorization", f"Bearer {wrong}")])
        assert caught.value.message == "unknown token; it may have been revoked", wrong


def test_only_clients_with_the_scope_priority_may_raise_the_priority(path: Path) -> None:
    path.write_text(f"ward infer,metadata,admin {DIGEST}\nemergency infer,metadata,admin,priority {'f' * 64}\n")
    ward, emergency = read_tokens(path)
    check_priority(1, emergency)
    check_priority(1, ANYONE)
    with pytest.raises(PermissionDenied) as caught:
        check_priority(1, ward)
    assert caught.value.message == (
        "parameters[priority] is 1: client ward lacks the scope priority, which is required for a raised priority; "
        "omit the parameter"
    )


@pytest.mark.parametrize(
    ("line", "error"),
    [
        ("ward infer", "has 2 words, expected three: NAME SCOPES SHA256"),
        (f"ward infer, metadata {DIGEST}", "has 4 words, expected three: NAME SCOPES SHA256"),
        (f"-ward infer {DIGEST}", "the name must consist of at most 64 letters, digits, '.', '_' and '-'"),
        (f"{'w' * 65} infer {DIGEST}", "the name must consist of at most 64 letters, digits, '.', '_' and '-'"),
        (
            f"ward infer,all {DIGEST}",
            "a scope is not one of infer, metadata, admin, priority; separate scopes by commas without spaces",
        ),
        (f"ward infer {DIGEST}0", "the third word is not a SHA-256 digest of 64 hexadecimal digits"),
        (f"ward infer {'g' * 64}", "the third word is not a SHA-256 digest of 64 hexadecimal digits"),
    ],
)
def test_a_malformed_line_is_an_error_with_its_number_that_does_not_quote_it(path: Path, line: str, error: str) -> None:
    path.write_text(f"# comment\n{line}\n")
    with pytest.raises(ValueError, match=f"^{re.escape(f'{path}:2: {error}')}$"):
        read_tokens(path)
    with pytest.raises(SettingsError, match=f"^{re.escape(f'{path}:2: {error}')}$"):
        Tokens(path)


def test_two_lines_with_the_same_token_are_an_error(path: Path) -> None:
    path.write_text(f"ward infer {DIGEST}\nother infer {DIGEST}\n")
    text = f"^{re.escape(str(path))}: two lines have the same token; each client needs its own token$"
    with pytest.raises(ValueError, match=text):
        read_tokens(path)


def test_a_file_is_read_as_utf_8(path: Path) -> None:
    path.write_bytes(f"ward infer {DIGEST} # M\u00fcller\n".encode())
    assert [grant.client for grant in read_tokens(path)] == ["ward"]
    path.write_bytes(b"ward infer " + DIGEST.encode() + b" # M\xfcller\n")
    with pytest.raises(UnicodeDecodeError):
        read_tokens(path)


def test_a_file_without_tokens_is_logged(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path.write_text("# none yet\n")
    assert read_tokens(path) == []
    assert caplog.record_tuples == [
        (
            "medserve_server.security.auth",
            logging.WARNING,
            f"--tokens {path} contains no tokens: all calls that require one are refused",
        )
    ]


def test_a_new_token_has_256_random_bits_and_only_its_digest_is_in_its_line() -> None:
    tokens = [new_token("w" * 64, "priority,admin,infer,metadata") for _ in range(2)]
    assert tokens[0] != tokens[1]
    for token, line in tokens:
        assert re.fullmatch(r"[A-Za-z0-9_-]{43}", token), "32 bytes in Base64"
        assert line == f"{'w' * 64} priority,admin,infer,metadata {sha256(token.encode()).hexdigest()}"


@pytest.mark.parametrize("name", ["", "two words", "w" * 65, "a#b", "_a"])
def test_a_new_token_needs_a_valid_name(name: str) -> None:
    text = f"{name!r} is not a valid name; use at most 64 letters, digits, '.', '_' and '-'"
    with pytest.raises(ValueError, match=f"^{re.escape(text)}$"):
        new_token(name, "infer")


@pytest.mark.parametrize("scopes", ["", "open", "infer, metadata", "infer;metadata", "infer,"])
def test_a_new_token_needs_valid_scopes(scopes: str) -> None:
    text = f"--scopes {scopes}: expected one or more of infer,metadata,admin,priority"
    with pytest.raises(ValueError, match=f"^{re.escape(text)}$"):
        new_token("ward", scopes)
