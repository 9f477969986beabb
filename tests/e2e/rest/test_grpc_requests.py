"""Requests to gRPC methods that are not gRPC calls, and gRPC calls with an invalid header."""

import base64

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2

from calls import grpc_web
from calls.rest_client import Reply, RestClient
from medserve_proto.inference import grpc_service_pb2 as pb

LIVE = "/inference.GRPCInferenceService/ServerLive"
STREAM = "/inference.GRPCInferenceService/ModelStreamInfer"
NOTHING = "/inference.GRPCInferenceService/Nothing"
EMPTY = bytes(5)
GRPC = ("application/grpc", "application/grpc+proto")
WEB = (
    "application/grpc-web",
    "application/grpc-web+proto",
    "application/grpc-web-text",
    "application/grpc-web-text+proto",
)
OTHERS = (
    "application/grpcfoo",
    "application/grpc+json",
    "application/grpc-webfoo",
    "application/grpc-web+json",
    "application/grpc/proto",
    "APPLICATION/JSON",
    "application/json",
    "",
)

pytestmark = pytest.mark.parametrize("transport", ["envoy"], indirect=True)  # grpcio serves gRPC on a separate port


def refusal(reply: Reply, status: int) -> str:
    """Returns the one-line error of a refused request."""
    assert (reply.status, reply.headers["content-type"]) == (status, "text/plain; charset=utf-8")
    assert "grpc-status" not in reply.headers
    assert b"\n" not in reply.body
    return reply.body.decode()


@pytest.mark.parametrize("path", [LIVE, STREAM])
@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "DELETE", "OPTIONS", "PATCH"])
@pytest.mark.parametrize("content_type", [*GRPC, "application/json"])
def test_only_post_is_accepted(rest: RestClient, path: str, method: str, content_type: str) -> None:
    reply = rest.ask(method, path, EMPTY, Content_Type=content_type)
    assert (reply.status, reply.headers["allow"]) == (405, "POST")
    if method != "HEAD":
        assert method in refusal(reply, 405)


@pytest.mark.parametrize("method", ["GET", "PUT", "OPTIONS"])
@pytest.mark.parametrize("kind", WEB)
def test_only_post_is_accepted_for_grpc_web(rest: RestClient, method: str, kind: str) -> None:
    reply = rest.ask(method, LIVE, Content_Type=kind)
    assert (reply.status, reply.headers["allow"], reply.headers["grpc-status"]) == (405, "POST", "2")
    assert method in reply.headers["grpc-message"]


@pytest.mark.parametrize("path", [LIVE, STREAM])
@pytest.mark.parametrize("content_type", OTHERS)
def test_unsupported_content_type_is_named(rest: RestClient, path: str, content_type: str) -> None:
    assert repr(content_type) in refusal(rest.post(path, EMPTY, Content_Type=content_type), 415)


def test_long_content_type_is_truncated(rest: RestClient) -> None:
    assert len(refusal(rest.post(LIVE, EMPTY, Content_Type="application/grpc" + "x" * 10_000), 415)) < 256


@pytest.mark.parametrize("path", [LIVE, STREAM, NOTHING])
@pytest.mark.parametrize("content_type", GRPC)
@pytest.mark.parametrize("claimed", ["", "application/grpc-web"])
def test_grpc_over_http_1_1_is_refused(rest: RestClient, path: str, content_type: str, claimed: str) -> None:
    """HTTP/1.1 has no trailers for the status; clients cannot forge the header that Envoy adds for the application."""
    reply = rest.post(path, EMPTY, Content_Type=content_type, TE="trailers", X_Medserve_Content_Type=claimed)
    assert "HTTP/2" in refusal(reply, 505)


@pytest.mark.parametrize("kind", WEB)
def test_grpc_web_over_http_1_1_is_supported(rest: RestClient, kind: str) -> None:
    reply = grpc_web.call(rest, LIVE, pb.ServerLiveRequest(), kind)
    assert (reply.http.status, reply.trailers["grpc-status"]) == (200, "0")


@pytest.mark.parametrize("path", [LIVE, STREAM])
@pytest.mark.parametrize(
    "timeout", ["", "5", "S", "5x", "5s", "-5S", "+5S", "1.5S", "5 S", "123456789S", "5SS", "0x5S", "x" * 10_000]
)
def test_malformed_timeout_is_reported(rest: RestClient, path: str, timeout: str) -> None:
    reply = grpc_web.call(rest, path, pb.ServerLiveRequest(), Grpc_Timeout=timeout)
    metadata = reply.trailers or reply.http.headers
    assert metadata["grpc-status"] == str(grpc.StatusCode.INVALID_ARGUMENT.value[0])
    status = status_pb2.Status.FromString(base64.b64decode(metadata["grpc-status-details-bin"] + "=="))
    bad = error_details_pb2.BadRequest()
    assert status.details[0].Unpack(bad)
    assert [violation.field for violation in bad.field_violations] == ["grpc-timeout"]
    assert repr(timeout[:32]) in bad.field_violations[0].description
    assert len(bad.field_violations[0].description) < 256


@pytest.mark.parametrize("timeout", ["1H", "60M", "00000060S", "60000m", "60000000u", "99999999H"])
def test_timeout_in_any_unit_is_accepted(rest: RestClient, timeout: str) -> None:
    reply = grpc_web.call(rest, LIVE, pb.ServerLiveRequest(), Grpc_Timeout=timeout)
    assert reply.trailers["grpc-status"] == "0"
