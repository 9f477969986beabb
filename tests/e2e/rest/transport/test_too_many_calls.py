"""Envoy's responses while too many calls are in flight have the format of the called API."""

from collections.abc import Iterator
from contextlib import ExitStack, closing
from socket import create_connection
from urllib.parse import urlsplit

import grpc
import pytest
from grpc_status import rpc_status

from calls.rest_client import RestClient
from medserve_proto.v1 import image_classification_pb2 as pb
from medserve_proto.v1 import model_catalog_pb2 as catalog
from medserve_proto.v1.image_classification_pb2_grpc import ImageClassificationStub
from medserve_proto.v1.model_catalog_pb2_grpc import ModelCatalogStub
from medserve_server.transport.envoy.config import SPARE_REQUESTS
from samples import onnx_models
from servers.server_process import ServerProcess, running_server
from waiting import PATIENCE, wait_until

TEXT = "too many calls are being answered already; try again later"
HEAD = b"POST /v2/models/identity-fp32/infer HTTP/1.1\r\nhost: a\r\ncontent-length: 9\r\n\r\n"


@pytest.fixture(scope="module")
def crowded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A server with as many requests waiting for their bodies as Envoy allows."""
    folder = tmp_path_factory.mktemp("models")
    onnx_models.save(folder, "identity-fp32", onnx_models.identity("FP32", ["batch", 3]))
    flags = ("--transport", "envoy", "--models", str(folder), "--max-pending-requests", "1")
    with running_server(*flags) as server, ExitStack() as stack:
        address = urlsplit(server.http_url)
        client = RestClient(server.http_url, {})

        def wait_for_one_more() -> None:
            connection = stack.enter_context(closing(create_connection((address.hostname, address.port), PATIENCE)))
            connection.sendall(HEAD)

        def is_crowded() -> bool:
            # The call below may take the place of a waiting request, which is then refused; this one replaces it.
            wait_for_one_more()
            return client.post("/v1/models/x:classify").status == 429

        for _ in range(SPARE_REQUESTS):
            wait_for_one_more()
        wait_until(is_crowded, "the limit to be reached")
        yield server


def test_open_inference_protocol(crowded: ServerProcess) -> None:
    reply = RestClient(crowded.http_url, {}).post("/v2/models/identity-fp32/infer", {"inputs": []})
    assert (reply.status, reply.error) == (429, TEXT)


def test_typed(crowded: ServerProcess) -> None:
    reply = RestClient(crowded.http_url, {}).post("/v1/models/x:classify", {"images": []})
    assert (reply.status, reply.headers["content-type"]) == (429, "application/json")
    error = reply.json["error"]
    assert (error["code"], error["status"], error["message"]) == (429, "RESOURCE_EXHAUSTED", TEXT)
    (detail,) = error["details"]
    assert (detail["reason"], detail["domain"]) == ("CALLS", "medserve")


def test_grpc(crowded: ServerProcess) -> None:
    with grpc.insecure_channel(crowded.target, [("grpc.enable_retries", 0)]) as channel:
        call = ImageClassificationStub(channel).Classify.future(pb.ClassifyRequest(), timeout=PATIENCE)
        assert (call.code(), call.details()) == (grpc.StatusCode.RESOURCE_EXHAUSTED, TEXT)
        (detail,) = rpc_status.from_call(call).details
    assert detail.type_url.endswith("google.rpc.ErrorInfo")


def test_probes_are_still_answered(crowded: ServerProcess) -> None:
    assert RestClient(crowded.http_url, {}).get("/readyz").status == 200


def test_models_are_still_listed_but_manifests_are_refused(crowded: ServerProcess) -> None:
    with grpc.insecure_channel(crowded.target, [("grpc.enable_retries", 0)]) as channel:
        stub = ModelCatalogStub(channel)
        (model,) = stub.ListModels(catalog.ListModelsRequest(), timeout=PATIENCE).models
        manifest = stub.GetManifest.future(catalog.GetManifestRequest(model_name=model.name), timeout=PATIENCE)
        assert manifest.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
