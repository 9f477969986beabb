"""The typed APIs as JSON: the same responses as over gRPC, and errors that name the field."""

import base64
import gzip
import io
import json
from typing import Any

import grpc
import numpy as np
import pytest
from google.protobuf.json_format import MessageToDict, ParseDict
from PIL import Image

from calls.rest_client import JSON, Reply, RestClient
from medserve_proto.v1 import image_classification_pb2 as image_pb
from medserve_proto.v1 import model_catalog_pb2 as catalog_pb
from medserve_proto.v1 import patient_risk_pb2 as risk_pb
from medserve_proto.v1.image_classification_pb2_grpc import ImageClassificationStub
from medserve_proto.v1.model_catalog_pb2_grpc import ModelCatalogStub
from medserve_proto.v1.patient_risk_pb2_grpc import PatientRiskStub
from samples.patient import PATIENT
from waiting import PATIENCE

CLASSIFY = "/v1/models/chest-xray:classify"
PREDICT = "/v1/models/breast-cancer-risk:predictRisk"
FEATURES = [
    {"key": key, "value": {"category": value} if isinstance(value, str) else {"number": value}}
    for key, value in PATIENT.items()
]


def image_file(kind: str = "PNG") -> bytes:
    pixels = np.arange(28 * 28, dtype=np.uint16).reshape(28, 28) % 251
    file = io.BytesIO()
    Image.fromarray(pixels.astype(np.uint8)).save(file, kind)
    return file.getvalue()


def as_json(message: Any) -> Any:  # noqa: ANN401
    return MessageToDict(message, always_print_fields_with_no_presence=True)


def encoded(data: bytes) -> str:
    return base64.b64encode(data).decode()


def violations(reply: Reply) -> dict[str, str]:
    assert reply.status == 400
    assert reply.json["error"]["status"] == "INVALID_ARGUMENT"
    assert reply.json["error"]["code"] == 400
    return reply.violations


def test_classify(rest: RestClient, rest_channel: grpc.Channel) -> None:
    body = {"images": [{"encoded": encoded(image_file())}], "topK": 1, "requestId": "7"}
    request = ParseDict({**body, "modelName": "chest-xray"}, image_pb.ClassifyRequest())
    over_grpc = ImageClassificationStub(rest_channel).Classify(request, timeout=PATIENCE)
    assert rest.post(CLASSIFY, body).json == as_json(over_grpc)
    assert over_grpc.request_id == "7"
    by_contract = {"images": body["images"], "top_k": 1, "request_id": "7", "model_name": "chest-xray"}
    assert rest.post(CLASSIFY, by_contract).json == as_json(over_grpc)


def test_predict(rest: RestClient, rest_channel: grpc.Channel) -> None:
    body = {"patients": [{"features": FEATURES}], "reasons": {"shapley": True}}
    request = ParseDict({**body, "modelName": "breast-cancer-risk"}, risk_pb.PredictRequest())
    over_grpc = PatientRiskStub(rest_channel).Predict(request, timeout=PATIENCE)
    assert rest.post(PREDICT, body).json == as_json(over_grpc)


def test_catalog(rest: RestClient, rest_channel: grpc.Channel) -> None:
    stub = ModelCatalogStub(rest_channel)
    assert rest.get("/v1/models").json == as_json(stub.ListModels(catalog_pb.ListModelsRequest(), timeout=PATIENCE))
    for version, path in (("", "/v1/models/chest-xray/manifest"), ("1", "/v1/models/chest-xray/versions/1/manifest")):
        request = catalog_pb.GetManifestRequest(model_name="chest-xray", model_version=version)
        assert rest.get(path).json == as_json(stub.GetManifest(request, timeout=PATIENCE))
    assert rest.get("/v1/models/chest-xray/manifest?model_version=1").json["modelVersion"] == "1"


def test_versions(rest: RestClient) -> None:
    body = {"images": [{"encoded": encoded(image_file())}]}
    assert rest.post(CLASSIFY, body).json["modelVersion"] == "2"
    assert rest.post("/v1/models/chest-xray/versions/1:classify", body).json["modelVersion"] == "1"
    reply = rest.post("/v1/models/breast-cancer-risk/versions/1:predictRisk", {"patients": [{"features": FEATURES}]})
    assert reply.json["modelVersion"] == "1"


@pytest.mark.parametrize(
    ("kind", "content_type"),
    [
        ("PNG", "image/png"),
        ("JPEG", "image/jpeg; charset=binary"),
        ("TIFF", "image/tiff"),
        ("PNG", "application/octet-stream"),
    ],
)
def test_image_file_as_body(rest: RestClient, kind: str, content_type: str) -> None:
    named = rest.post(CLASSIFY, {"images": [{"encoded": encoded(image_file(kind))}], "topK": 1})
    assert named.status == 200
    assert rest.post(f"{CLASSIFY}?top_k=1", image_file(kind), Content_Type=content_type).json == named.json
    packed = gzip.compress(image_file(kind))
    assert (
        rest.post(f"{CLASSIFY}?topK=1", packed, Content_Type=content_type, Content_Encoding="gzip").json == named.json
    )


def test_file_that_is_not_an_image_is_refused(rest: RestClient) -> None:
    assert list(violations(rest.post(CLASSIFY, b"none", Content_Type="image/png"))) == ["images[0].encoded"]


WRONG: list[tuple[str, Any, str, str]] = [
    (CLASSIFY, {"imges": []}, "imges", "is not a field of this message"),
    (CLASSIFY, {"images": [{}, {"frme": 1}]}, "images[1].frme", "is not a field of this message"),
    (CLASSIFY, {"images": [{"raw": {"pixels": "AA==", "size": []}}]}, "images[0].raw.size", "is not a field"),
    (CLASSIFY, {"images": [{"frame": "x"}]}, "images.frame", "invalid literal"),
    (CLASSIFY, {"images": [{"frame": -1}]}, "images.frame", "out of range"),
    (CLASSIFY, {"images": {}}, "images", "must be in []"),
    (CLASSIFY, {"images": [{"encoded": "AAAA", "raw": {}}]}, "images", "multiple"),
    (CLASSIFY, {"images": [{"encoded": "***"}]}, "images[0].encoded", ""),
    (CLASSIFY, {"images": [None]}, "images", "null is not allowed"),
    (CLASSIFY, {"topK": 2**40}, "topK", "out of range"),
    (CLASSIFY, {"modelName": "other"}, "model_name", "is 'other', but the path has 'chest-xray'"),
    (CLASSIFY, {"images": []}, "images", "has 0 entries"),
    (CLASSIFY, b'{"topK": 1, "topK": 2}', "", "duplicate key"),
    (CLASSIFY, b"[1]", "", "the body is not a JSON object"),
    (CLASSIFY, b"", "", "the body is not a JSON object"),
    (CLASSIFY, b"{", "", "the body is not a valid message"),
    (CLASSIFY, b'{"a": "\xff"}', "", "UTF-8"),
    (CLASSIFY, b'{"a":' + b"[" * 100_000, "", "recursion depth"),
    (CLASSIFY, b'{"images":' * 100_000, "", "recursion depth"),
    (CLASSIFY, b'{"topK": ' + b"9" * 100_000 + b"}", "", "the body is not a valid message"),
    (f"{CLASSIFY}?topK=1", {}, "", "the URL has a query"),
    (PREDICT, {"patients": [{"features": FEATURES[1:]}]}, "patients[0].features[age]", ""),
    (PREDICT, {"patients": [{"features": [{"key": "age", "value": {"number": "x"}}]}]}, "", ""),
]


@pytest.mark.parametrize(("path", "body", "field", "description"), WRONG, ids=range(len(WRONG)))
def test_invalid_request_is_refused_with_its_field(
    rest: RestClient,
    path: str,
    body: Any,  # noqa: ANN401
    field: str,
    description: str,
) -> None:
    found = violations(rest.post(path, body, **({"Content_Type": "application/json"} if body == b"" else JSON)))
    ((named, text),) = found.items()
    if field:
        assert named.replace("modelName", "model_name") == field
    assert description in text


def test_invalid_query_is_refused(rest: RestClient) -> None:
    for query, field in (
        ("nothing=1", "nothing"),
        ("topK=x", "topK"),
        ("topK=1&topK=2", "topK"),
        ("images=1", "images"),
    ):
        assert list(violations(rest.post(f"{CLASSIFY}?{query}", image_file(), Content_Type="image/png"))) == [field]
    assert "nothing" in violations(rest.get("/v1/models?nothing=1"))
    assert rest.get("/v1/models?" + "&".join(f"a{index}=1" for index in range(100))).status == 400
    assert rest.get("/v1/models?a=%ff").status == 400


@pytest.mark.parametrize("content_type", ["", "text/plain", "application/x-www-form-urlencoded", "image/gif"])
def test_unsupported_content_types_are_refused(rest: RestClient, content_type: str) -> None:
    reply = rest.post(CLASSIFY, json.dumps({}).encode(), Content_Type=content_type)
    assert reply.status == 415
    assert "expected one of application/json, image/png" in reply.json["error"]["message"]
    assert rest.post(PREDICT, image_file(), Content_Type="image/png").status == 415


def test_http_status_corresponds_to_grpc_status(rest: RestClient) -> None:
    body = {"images": [{"encoded": encoded(image_file())}]}
    for path, status, name in (
        ("/v1/models/nothing:classify", 404, "NOT_FOUND"),
        ("/v1/models/chest-xray/versions/9:classify", 404, "NOT_FOUND"),
        ("/v1/models/breast-cancer-risk:classify", 400, "FAILED_PRECONDITION"),
    ):
        error = rest.post(path, body).json["error"]
        assert (error["code"], error["status"]) == (status, name)
    assert rest.post("/v1/models/nothing:classify", body).status == 404


def test_unknown_paths_and_methods(rest: RestClient) -> None:
    for path in ("/v1", "/v1/models/", "/v1/models/a:b", "/v3", "/v1/models/a/b:classify", "//v1/models"):
        reply = rest.get(path)
        assert (reply.status, reply.json["error"]["status"]) == (404, "NOT_FOUND")
    for method in ("GET", "PUT", "DELETE", "OPTIONS"):
        reply = rest.ask(method, CLASSIFY)
        assert (reply.status, reply.headers["allow"], reply.json["error"]["code"]) == (405, "POST", 405)
