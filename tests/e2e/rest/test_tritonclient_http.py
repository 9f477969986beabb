"""Unmodified tritonclient.http with the real server."""

import json
import subprocess
from typing import Any

import pytest

from samples import onnx_models
from servers.server_process import REPOSITORY, ServerProcess
from waiting import PATIENCE

PYTHON = REPOSITORY / ".venv-triton/bin/python"
CALLS = REPOSITORY / "tests/e2e/other_clients/triton_http_calls.py"
ROWS = [[0, 1, 2], [3, 4, 5]]


@pytest.fixture(scope="module")
def responses(rest_server: ServerProcess) -> dict[str, Any]:
    assert PYTHON.exists(), "tritonclient's environment is missing: `make test` creates it"
    target = rest_server.http_url.removeprefix("http://")
    ended = subprocess.run([PYTHON, CALLS, target], capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert ended.returncode == 0, ended.stderr
    found: dict[str, Any] = json.loads(ended.stdout)
    return found


def test_server_and_model_state(responses: dict[str, Any]) -> None:
    assert [responses[key] for key in ("live", "ready", "model_ready", "unknown_ready")] == [True, True, True, False]
    assert responses["metadata"]["name"] == "medserve"
    assert responses["model_metadata"]["versions"] == ["1", "2"]
    assert responses["config"]["max_batch_size"] == 64
    assert {"name": "chest-xray", "version": "2", "state": "READY", "reason": ""} in responses["index"]


def test_inference(responses: dict[str, Any]) -> None:
    assert responses["infer"] == [ROWS] * 2
    assert responses["compressed"] == [ROWS] * 4
    assert responses["strings"] == [["a", "ä", ""]] * 2
    for kind in ("default_outputs", "float16", "asynchronous", "with_parameters"):
        assert responses[kind] == ROWS
    assert responses["no_inputs"] == onnx_models.TABLE


def test_statistics(responses: dict[str, Any]) -> None:
    (statistics,) = responses["statistics"]["model_stats"]
    assert statistics["inference_stats"]["success"]["count"] >= 6
    assert responses["all_statistics"] > 10


def test_errors(responses: dict[str, Any]) -> None:
    assert [responses[call][0] for call in ("load", "unload")] == ["501", "501"]
    assert responses["wrong_name"][0] == "404"
    assert responses["wrong_datatype"] == ["400", "inputs[x].datatype: is 'FP64', expected FP32"]
