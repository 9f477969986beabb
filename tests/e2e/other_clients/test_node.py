"""@grpc/grpc-js, gRPC's implementation for Node.js, with the real server."""

import base64
import json
import subprocess
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2

from programs import node_modules, program
from samples import onnx_models
from servers.held_server import held_server
from servers.server_process import REPOSITORY, ServerProcess
from waiting import PATIENCE

FOLDER = REPOSITORY / "tests/e2e/node"


def node(target: str, what: str) -> dict[str, Any]:
    """Returns the output of calls.js."""
    path = program("node", "nodejs")
    node_modules(FOLDER)
    ended = subprocess.run(
        [path, FOLDER / "calls.js", target, REPOSITORY / "proto", what],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    found: dict[str, Any] = json.loads(ended.stdout)
    return found


@pytest.fixture(scope="module")
def responses(zoo: ServerProcess) -> dict[str, Any]:
    return node(zoo.target, "responses")


def test_unary_call(responses: dict[str, Any]) -> None:
    assert responses["unary"] == {"id": "7", "shape": [1, 3], "numbers": [0.5, 1, 2]}


def test_error_has_details(responses: dict[str, Any]) -> None:
    error = responses["error"]
    assert error["code"] == grpc.StatusCode.INVALID_ARGUMENT.value[0]
    assert error["message"].startswith("inputs[x].shape: is [1, 2], expected [-1, 3]")
    status = status_pb2.Status.FromString(base64.b64decode(error["details"][0]))
    assert (status.code, status.message) == (error["code"], error["message"])
    violations = error_details_pb2.BadRequest()
    assert status.details[0].Unpack(violations)
    assert [violation.field for violation in violations.field_violations] == ["inputs[x].shape"]


def test_bidirectional_stream(responses: dict[str, Any]) -> None:
    assert responses["stream"]["code"] == 0
    first, second, third = responses["stream"]["responses"]
    assert first == {"id": "a", "numbers": [1, 2, 3]}
    assert "expected [-1, 3]" in second["error"]
    assert third == {"id": "c", "numbers": [4, 5, 6]}


def test_deadline_ends_the_call_on_both_sides(tmp_path: Path, transport: str) -> None:
    onnx_models.save(tmp_path / "models", "identity-fp32", onnx_models.identity("FP32", ["batch", 3]))
    flags = ("--transport", transport, "--models", str(tmp_path / "models"))
    with held_server(tmp_path / "hold", *flags) as held:
        with held.hold():
            assert node(held.server.target, "deadline")["code"] == grpc.StatusCode.DEADLINE_EXCEEDED.value[0]
            assert held.server.total("grpc_server_started_total") == 1
            held.wait_for_calls(0)
        assert node(held.server.target, "responses")["unary"]["numbers"] == [0.5, 1, 2]
