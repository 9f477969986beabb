"""The table of scopes contains every method of the server."""

from pathlib import Path

import pytest
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2

from medserve_server.errors import PermissionDenied
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
