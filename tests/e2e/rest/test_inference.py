"""Paths of the Open Inference Protocol: statuses and bodies."""

import gzip
import json
import zlib
from typing import Any

import numpy as np
import pytest

from calls.rest_client import RestClient, tensor
from samples import onnx_models

JSON_BYTES = "inference-header-content-length"


def binary(client: RestClient, head: dict[str, Any], *blobs: bytes) -> Any:  # noqa: ANN401
    text = json.dumps(head).encode()
    body = text + b"".join(blobs)
    return client.post("/v2/models/identity-fp32/infer", body, Inference_Header_Content_Length=str(len(text)))


def test_health(rest: RestClient) -> None:
    assert (rest.get("/v2/health/live").status, rest.get("/v2/health/live").json) == (200, {"live": True})
    assert (rest.get("/v2/health/ready").status, rest.get("/v2/health/ready").json) == (200, {"ready": True})
    ready = rest.get("/v2/models/chest-xray/versions/2/ready")
    assert (ready.status, ready.json) == (200, {"name": "chest-xray", "version": "2", "ready": True})
    assert rest.get("/v2/models/nothing/ready").status == 400


def test_probes(rest: RestClient) -> None:
    for path in ("/livez", "/readyz"):
        assert (rest.get(path).status, rest.get(path).body) == (200, b"ok\n")


def test_metadata(rest: RestClient) -> None:
    server = rest.get("/v2").json
    assert server["name"] == "medserve"
    assert "binary_tensor_data" in server["extensions"]
    model = rest.get("/v2/models/identity-fp32").json
    assert model["inputs"] == [{"name": "x", "datatype": "FP32", "shape": [-1, 3]}]
    assert rest.get("/v2/models/chest-xray").json["versions"] == ["1", "2"]
    assert rest.get("/v2/models/chest-xray/versions/2").status == 200
    unknown = rest.get("/v2/models/chest-xray/versions/3")
    assert unknown.status == 404
    assert "3" in unknown.error


def test_configuration_and_statistics(rest: RestClient) -> None:
    config = rest.get("/v2/models/identity-fp32/config").json
    assert (config["max_batch_size"], config["input"][0]["dims"]) == (64, [3])
    assert rest.infer("identity-fp32", tensor("FP32", [1, 3], [1, 2, 3])).status == 200
    (one,) = rest.get("/v2/models/identity-fp32/versions/1/stats").json["model_stats"]
    assert one["inference_stats"]["success"]["count"] >= 1
    assert len(rest.get("/v2/models/stats").json["model_stats"]) > 10


def test_repository(rest: RestClient) -> None:
    listed = rest.post("/v2/repository/index").json
    assert {"name": "lookup", "version": "1", "state": "READY", "reason": ""} in listed
    assert rest.post("/v2/repository/index", {"ready": True}).json == listed
    assert rest.post("/v2/repository/index", {"ready": "yes"}).error == "ready: is not a boolean"
    for verb in ("load", "unload"):
        refused = rest.post(f"/v2/repository/models/lookup/{verb}")
        assert refused.status == 501
        assert "--model-control" in refused.error
    assert "parameters[config]" in rest.post("/v2/repository/models/x/load", {"parameters": {"config": "{}"}}).error


def test_inference(rest: RestClient) -> None:
    reply = rest.infer("identity-fp32", tensor("FP32", [2, 3], [[0.1, 1, 2], [3, 4, 5]]), id="7")
    assert reply.headers["content-type"] == "application/json"
    assert reply.json == {
        "model_name": "identity-fp32",
        "model_version": "1",
        "id": "7",
        "outputs": [{"name": "y", "datatype": "FP32", "shape": [2, 3], "data": [0.1, 1.0, 2.0, 3.0, 4.0, 5.0]}],
    }
    assert rest.infer("constant").json["outputs"][0]["data"] == onnx_models.TABLE


def test_requested_outputs(rest: RestClient) -> None:
    inputs = [tensor("FP32", [1, 2], [3, 4], "a"), tensor("FP32", [1, 2], [1, 1], "b")]
    reply = rest.infer("two-inputs", *inputs, outputs=[{"name": "difference"}])
    assert [(output["name"], output["data"]) for output in reply.json["outputs"]] == [("difference", [2.0, 3.0])]


def test_binary_data(rest: RestClient) -> None:
    rows = np.array([[0.5, np.nan, np.inf]], np.float32)
    head = {
        "inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 3], "parameters": {"binary_data_size": 12}}],
        "outputs": [{"name": "y", "parameters": {"binary_data": True}}],
    }
    reply = binary(rest, head, rows.tobytes())
    assert reply.headers["content-type"] == "application/octet-stream"
    length = int(reply.headers[JSON_BYTES])
    (output,) = json.loads(reply.body[:length])["outputs"]
    assert output["parameters"] == {"binary_data_size": 12}
    assert reply.body[length:] == rows.tobytes()


def test_binary_outputs_by_default_with_one_as_json(rest: RestClient) -> None:
    inputs = [tensor("FP32", [1, 2], [3, 4], "a"), tensor("FP32", [1, 2], [1, 1], "b")]
    outputs = [{"name": "sum", "parameters": {"binary_data": False}}, {"name": "difference"}]
    reply = rest.infer("two-inputs", *inputs, outputs=outputs, parameters={"binary_data_output": True})
    length = int(reply.headers[JSON_BYTES])
    described = json.loads(reply.body[:length])["outputs"]
    assert described[0]["data"] == [4.0, 5.0]
    assert "data" not in described[1]
    assert np.frombuffer(reply.body[length:], np.float32).tolist() == [2.0, 3.0]


def test_json_and_binary_inputs_in_one_request(rest: RestClient) -> None:
    inputs = [
        tensor("FP32", [1, 2], [3, 4], "a"),
        {"name": "b", "datatype": "FP32", "shape": [1, 2], "parameters": {"binary_data_size": 8}},
    ]
    text = json.dumps({"inputs": inputs}).encode()
    reply = rest.post(
        "/v2/models/two-inputs/infer",
        text + np.array([1, 2], np.float32).tobytes(),
        Inference_Header_Content_Length=str(len(text)),
    )
    assert [output["data"] for output in reply.json["outputs"]] == [[4.0, 6.0], [2.0, 2.0]]


@pytest.mark.parametrize(("encoding", "compress"), [("gzip", gzip.compress), ("deflate", zlib.compress)])
def test_compressed_requests(rest: RestClient, encoding: str, compress: Any) -> None:  # noqa: ANN401
    body = compress(json.dumps({"inputs": [tensor("FP32", [1, 3], [1, 2, 3])]}).encode())
    reply = rest.post("/v2/models/identity-fp32/infer", body, Content_Encoding=encoding)
    assert reply.json["outputs"][0]["data"] == [1.0, 2.0, 3.0]
    cut = rest.post("/v2/models/identity-fp32/infer", body[:-1], Content_Encoding=encoding)
    assert (cut.status, cut.error) == (
        400,
        f"the {len(body) - 1} bytes of the body are not one complete {encoding} stream",
    )


def test_values_that_json_cannot_represent_are_refused(rest: RestClient) -> None:
    head = {"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 3], "parameters": {"binary_data_size": 12}}]}
    reply = binary(rest, head, np.array([1, np.nan, 2], np.float32).tobytes())
    assert reply.status == 400
    assert reply.error.startswith("outputs[y]: contains NaN or an infinity")


def test_head(rest: RestClient) -> None:
    reply = rest.ask("HEAD", "/v2")
    assert (reply.status, reply.body) == (200, b"")
    assert int(reply.headers["content-length"]) == len(rest.get("/v2").body)


def test_unknown_paths_and_methods(rest: RestClient) -> None:
    assert rest.get("/v2/nothing").error.startswith("unknown path '/v2/nothing'")
    wrong = rest.get("/v2/models/identity-fp32/infer")
    assert (wrong.status, wrong.headers["allow"]) == (405, "POST")
    assert "POST" in wrong.error
