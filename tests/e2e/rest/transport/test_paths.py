"""Percent-encoded non-ASCII bytes in paths: with Envoy, they must not reach the interpreter."""

import http.client
from urllib.parse import urlsplit

import grpc
import pytest

from calls.rest_client import RestClient
from servers.server_process import ServerProcess
from waiting import PATIENCE

ESCAPES = ["%ff", "%FF", "%c3", "%C3%A4", "%ed%a0%80", "%80%80", "a%e2%28b"]


@pytest.mark.parametrize("escape", ESCAPES)
@pytest.mark.parametrize("path", ["/{}", "/v1/models/{}/manifest", "/v2/models/{}", "/v2/models/{}?a=b"])
def test_non_ascii_path_is_not_found(server: ServerProcess, path: str, escape: str) -> None:
    parts = urlsplit(server.http_url)
    assert parts.hostname is not None
    connection = http.client.HTTPConnection(parts.hostname, parts.port, timeout=PATIENCE)
    connection.request("GET", path.format(escape))
    response = connection.getresponse()
    assert response.status == http.client.NOT_FOUND
    assert response.headers["Content-Type"] == "application/json"
    response.read()
    connection.close()


@pytest.mark.parametrize("escape", ESCAPES)
def test_non_ascii_query_is_accepted(server: ServerProcess, escape: str) -> None:
    assert RestClient(server.http_url, {}).get(f"/v2/health/ready?a={escape}").status == http.client.OK


def test_non_ascii_method_is_refused(server: ServerProcess) -> None:
    with grpc.insecure_channel(server.target) as channel:
        call: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary("/medserve.v1.ModelCatalog/%ff")
        code = call.future(b"", timeout=PATIENCE).code()
    assert code in {grpc.StatusCode.NOT_FOUND, grpc.StatusCode.UNIMPLEMENTED}
