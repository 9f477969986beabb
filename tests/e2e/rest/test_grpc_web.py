"""gRPC-Web, translated by Envoy: the same responses and errors as gRPC, for web pages."""

import base64
import io
from collections.abc import Iterator
from urllib.parse import unquote

import grpc
import numpy as np
import pytest
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2
from PIL import Image

from calls.grpc_web import BINARY, TEXT, call
from calls.rest_client import RestClient
from medserve_proto.inference import grpc_service_pb2 as pb
from medserve_proto.inference.grpc_service_pb2_grpc import GRPCInferenceServiceStub
from medserve_proto.v1 import image_classification_pb2 as image_pb
from medserve_proto.v1.image_classification_pb2_grpc import ImageClassificationStub
from servers.server_process import running_server
from waiting import PATIENCE

INFER = "/inference.GRPCInferenceService/ModelInfer"
CLASSIFY = "/medserve.v1.ImageClassification/Classify"
VIEWER = "https://viewer.example.org"

pytestmark = [
    pytest.mark.parametrize("transport", ["envoy"], indirect=True),
    pytest.mark.parametrize("kind", [BINARY, TEXT, "application/grpc-web", "application/grpc-web-text"]),
]


@pytest.fixture(scope="module")
def page(transport: str) -> Iterator[RestClient]:
    """A client that sends the headers of a viewer's page, to a server that allows its origin."""
    with running_server("--transport", transport, "--cors-origin", VIEWER) as server:
        yield RestClient(server.http_url, {"Origin": VIEWER})


def infer_request(rows: int, columns: int = 3) -> pb.ModelInferRequest:
    payload = np.arange(rows * columns, dtype=np.float32).tobytes()
    request = pb.ModelInferRequest(model_name="identity-fp32", id="7", raw_input_contents=[payload])
    request.inputs.add(name="x", datatype="FP32", shape=[rows, columns])
    return request


def classify_request() -> image_pb.ClassifyRequest:
    file = io.BytesIO()
    Image.new("L", (28, 28), 99).save(file, "PNG")
    request = image_pb.ClassifyRequest(model_name="chest-xray")
    request.images.add(encoded=file.getvalue())
    return request


@pytest.mark.parametrize("rows", [1, 2, 64])
def test_inference(rest: RestClient, rest_channel: grpc.Channel, kind: str, rows: int) -> None:
    reply = call(rest, INFER, infer_request(rows), kind)
    assert reply.http.status == 200
    assert reply.http.headers["content-type"].startswith(kind.removesuffix("+proto"))
    expected = GRPCInferenceServiceStub(rest_channel).ModelInfer(infer_request(rows), timeout=PATIENCE)
    assert list(map(pb.ModelInferResponse.FromString, reply.messages)) == [expected]
    assert reply.trailers["grpc-status"] == "0"


def test_classification(rest: RestClient, rest_channel: grpc.Channel, kind: str) -> None:
    reply = call(rest, CLASSIFY, classify_request(), kind)
    expected = ImageClassificationStub(rest_channel).Classify(classify_request(), timeout=PATIENCE)
    assert list(map(image_pb.ClassifyResponse.FromString, reply.messages)) == [expected]


@pytest.mark.parametrize(
    ("path", "request_"),
    [
        (INFER, infer_request(1, columns=2)),
        (INFER, pb.ModelInferRequest(model_name="nothing")),
        (CLASSIFY, image_pb.ClassifyRequest(model_name="chest-xray", images=[{"encoded": b"none"}])),  # type: ignore[list-item]
    ],
    ids=["shape", "model", "image"],
)
def test_error_has_details(
    rest: RestClient, rest_channel: grpc.Channel, kind: str, path: str, request_: Message
) -> None:
    reply = call(rest, path, request_, kind)
    ask: grpc.UnaryUnaryMultiCallable[Message, bytes] = rest_channel.unary_unary(path, type(request_).SerializeToString)
    expected = ask.future(request_, timeout=PATIENCE)
    assert (reply.http.status, reply.messages) == (200, [])
    trailers = reply.trailers or reply.http.headers
    assert expected.code() is not grpc.StatusCode.OK
    assert int(trailers["grpc-status"]) == expected.code().value[0]
    assert unquote(trailers["grpc-message"]) == expected.details()
    details = trailers["grpc-status-details-bin"]
    status = status_pb2.Status.FromString(base64.b64decode(details + "=" * (-len(details) % 4)))
    trailing = dict(expected.trailing_metadata())
    assert status.SerializeToString() == trailing["grpc-status-details-bin"]
    assert status.details[0].Unpack(error_details_pb2.BadRequest())


def test_pages_of_an_allowed_origin(page: RestClient, kind: str) -> None:
    wanted = "content-type,x-grpc-web,x-user-agent,authorization"
    asked = {"Access_Control_Request_Method": "POST", "Access_Control_Request_Headers": wanted}
    preflight = page.ask("OPTIONS", CLASSIFY, **asked)
    assert (preflight.status, preflight.headers["access-control-allow-origin"]) == (204, VIEWER)
    assert preflight.headers["access-control-allow-headers"] == wanted
    assert "POST" in preflight.headers["access-control-allow-methods"]
    for request in (classify_request(), image_pb.ClassifyRequest(model_name="nothing")):
        reply = call(page, CLASSIFY, request, kind)
        assert reply.http.status == 200
        assert reply.http.headers["access-control-allow-origin"] == VIEWER
        assert "grpc-status-details-bin" in reply.http.headers["access-control-expose-headers"]
    foreign = call(RestClient(page.url, {"Origin": "https://other.example.org"}), CLASSIFY, classify_request(), kind)
    assert "access-control-allow-origin" not in foreign.http.headers
