"""The OpenAPI document covers every path, and the server conforms to it for any request."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from calls.rest_client import RestClient
from medserve_server.rest import inference, status, typed
from servers.server_process import ServerProcess, environment
from waiting import PATIENCE

CHECKS = "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance"


def test_every_path_is_documented(rest: RestClient) -> None:
    document = rest.get("/openapi.json").json
    described = {(method.upper(), path) for path, methods in document["paths"].items() for method in methods}
    others = [("GET", path, None) for path in (status.PATH, "/livez", "/readyz")]
    endpoints = [*inference.ENDPOINTS, *typed.endpoints(), *others]
    unmatched = {
        (method, path)
        for method, path in described
        if not any(method == kind and re.fullmatch(pattern, path) for kind, pattern, _ in endpoints)
    }
    assert unmatched == set()
    for kind, pattern, _ in endpoints:
        assert any(kind == method and re.fullmatch(pattern, path) for method, path in described), pattern


def test_the_examples_of_requests_are_accepted(rest: RestClient) -> None:
    models = {"ClassifyRequest": "chest-xray", "PredictRequest": "breast-cancer-risk", "SegmentRequest": "spots"}
    for path, methods in rest.get("/openapi.json").json["paths"].items():
        content = methods.get("post", {}).get("requestBody", {}).get("content", {}).get("application/json", {})
        if "example" in content:
            kind = content["schema"]["$ref"].rpartition("/")[2]
            filled = re.sub(r"\{(model_)?name\}", models.get(kind, "breast-cancer-risk"), path)
            filled = re.sub(r"\{(model_)?version\}", "1", filled)
            reply = rest.post(filled, content["example"])
            assert reply.status == 200, (filled, reply.body)


@pytest.mark.parametrize("transport", ["envoy"], indirect=True)
def test_server_conforms_to_the_document(rest_server: ServerProcess, tmp_path: Path) -> None:
    """Checked by schemathesis with valid and invalid data."""
    program = Path(sys.executable).with_name("python")
    url = f"{rest_server.http_url}/openapi.json"
    options = ("--max-examples", "5", "--seed", "1", "--phases", "coverage,fuzzing", "--mode", "all")
    unsupported = ("--exclude-path-regex", "^/v2/repository/models/")  # UNIMPLEMENTED without --model-control explicit
    before = rest_server.total("medserve_internal_errors_total")
    ended = subprocess.run(
        [program, "-m", "schemathesis.cli", "run", url, *options, *unsupported, "--checks", CHECKS],
        cwd=tmp_path,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert ended.returncode == 0, ended.stdout[-6000:] + ended.stderr[-1000:]
    assert rest_server.total("medserve_internal_errors_total") == before
