"""Refused tensors, reported by name, and malicious bodies."""

import gzip
import json
import math
from typing import Any

import numpy as np
import pytest

from calls.rest_client import RestClient, tensor
from servers.server_process import ServerProcess

INFER = "/v2/models/identity-fp32/infer"
DATA = "inputs[x].data: "
FIELDS: list[tuple[dict[str, Any], str]] = [
    (tensor("FP32", [1, 3], [1, 2, "3"]), DATA + "contains a string at index 2, expected numbers for FP32"),
    (tensor("FP32", [1, 3], [1, 2, None]), DATA + "contains null at index 2"),
    (tensor("FP32", [1, 3], [1, 2, True]), DATA + "contains a boolean at index 2"),
    (tensor("FP32", [1, 3], [1, 2, {}]), DATA + "contains a JSON object at index 2"),
    (tensor("FP32", [1, 3], [1, 2, math.nan]), DATA + "contains NaN or an infinity"),
    (tensor("FP32", [1, 3], [1, 2, -math.inf]), DATA + "contains NaN or an infinity"),
    (tensor("FP32", [1, 3], [1, 2, 1e39]), DATA + "contains a number that is out of range for FP32"),
    (tensor("FP32", [1, 3], [1, 2]), DATA + "has 2 elements, expected 3 for [1, 3]"),
    (tensor("FP32", [2, 3], [[1, 2, 3], [1, 2]]), DATA + "is ragged"),
    (tensor("FP32", [2, 3], [[1, 2, 3]]), DATA + "has 1 rows, expected 2"),
    (tensor("FP32", [1, 3], [[[1], [2], [3]]]), DATA + "contains an array at index 0"),
    (tensor("FP32", [1, 3], 5), DATA + "is a number, expected an array"),
    (tensor("FP32", [1, 3], "123"), DATA + "is a string, expected an array"),
    ({"name": "x", "datatype": "FP32", "shape": [1, 3]}, DATA + "is missing"),
    (tensor("FP32", [1, -3], [1, 2, 3]), "inputs[x].shape: contains a size that is not a non-negative integer"),
    (tensor("FP32", [1, 3.0], [1, 2, 3]), "inputs[x].shape: contains a size"),  # type: ignore[list-item]
    (tensor("FP32", [1, 10**30], [1]), "inputs[x].shape: contains a size"),
    (tensor("FP32", [1] * 65, [1]), "inputs[x].shape: has 65 axes"),
    ({"name": "x", "datatype": "FP32", "data": [1]}, "inputs[x].shape: is missing"),
    ({"datatype": "FP32", "shape": [1], "data": [1]}, "inputs[0].name: is missing"),
    (tensor("FP64", [1, 3], [1, 2, 3]), "inputs[x].datatype: is 'FP64', expected FP32"),
    (tensor("FP8", [1, 3], [1, 2, 3]), "inputs[x].datatype: is 'FP8', expected one of BOOL, "),
    (tensor("FP16", [1, 3], [1, 2, 3]), DATA + "cannot represent FP16 in JSON; send it as binary data"),
    (tensor("FP32", [1, 2], [1, 2]), "inputs[x].shape: is [1, 2], expected [-1, 3]"),
    (tensor("FP32", [1, 3], [1, 2, 3], name="z"), "inputs[0].name: is 'z'; the model's inputs are x"),
    (tensor("FP32", [1, 3], [1, 2, 3], parameters=[]), "inputs[x].parameters: is an array, expected a JSON object"),
    (tensor("FP32", [1, 3], [1, 2, 3], parameters={"p": None}), "inputs[x].parameters[p]: is null"),
    (
        tensor("FP32", [1, 3], [1, 2, 3], parameters={"binary_data_size": 12}),
        DATA + "is set together with binary_data_size",
    ),
    (
        {"name": "x", "datatype": "FP32", "shape": [1, 3], "parameters": {"binary_data_size": 12}},
        "inputs[x].parameters[binary_data_size]: is 12, but 0 bytes are left",
    ),
]
INTEGERS = [
    ("UINT8", 256),
    ("UINT8", -1),
    ("INT8", -129),
    ("INT8", 128),
    ("UINT16", 2**16),
    ("INT16", 2**15),
    ("UINT32", 2**32),
    ("INT32", -(2**31) - 1),
    ("UINT64", 2**64),
    ("UINT64", -1),
    ("INT64", 2**63),
    ("INT64", 10**40),
    *((f"{kind}{bits}", wrong) for kind in ("INT", "UINT") for bits in (8, 16, 32, 64) for wrong in (1.5, 1.0, True)),
]


@pytest.mark.parametrize(("given", "expected"), FIELDS, ids=[expected[:60] for _, expected in FIELDS])
def test_invalid_tensor_is_refused_by_name(rest: RestClient, given: dict[str, Any], expected: str) -> None:
    reply = rest.infer("identity-fp32", given)
    assert reply.status == 400
    assert expected in reply.error


@pytest.mark.parametrize(("datatype", "number"), INTEGERS)
def test_number_outside_the_datatype_is_refused(rest: RestClient, datatype: str, number: float) -> None:
    reply = rest.infer(f"identity-{datatype.lower()}", tensor(datatype, [1, 3], [0, 1, number]))
    assert reply.status == 400
    assert reply.error.startswith(DATA)


@pytest.mark.parametrize("number", [0, 1, 1.0, "true", None])
def test_booleans_must_be_true_or_false(rest: RestClient, number: object) -> None:
    assert rest.infer("identity-bool", tensor("BOOL", [1, 3], [True, False, number])).error.startswith(DATA)


@pytest.mark.parametrize("element", [1, None, True, ["a"]])
def test_bytes_must_be_strings(rest: RestClient, element: object) -> None:
    assert rest.infer("identity-bytes", tensor("BYTES", [1, 3], ["a", "b", element])).error.startswith(DATA)


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b"[]", "the body is an array, expected a JSON object"),
        (b"{", "the body is not JSON"),
        (b"\xff\xfe", "the body is not JSON"),
        (b'{"inputs": {}}', "inputs: is a JSON object, expected an array"),
        (b'{"inputs": [1]}', "inputs[0]: is a number, expected a JSON object"),
        (b'{"id": 1}', "id: is a number, expected a string"),
        (b'{"parameters": {"timeout": "soon"}}', "parameters[timeout]: is not a whole number"),
        (b'{"parameters": {"binary_data_output": 1}}', "parameters[binary_data_output]: is not a boolean"),
        (
            b'{"outputs": [{"name": "y", "parameters": {"binary_data": 1}}]}',
            "parameters[binary_data]: is not a boolean",
        ),
        (b"", "inputs: does not contain x"),
        (b"[" * 100_000, "the body is not JSON"),
        (b'{"inputs":' * 100_000, "the body is not JSON"),
        (b'{"inputs":[' + b"[]," * 2**20 + b"[]]}", "more than 1048576 arrays and objects"),
        (json.dumps({"inputs": [tensor("FP32", [1, 3], [1, 2, 3])] * 257}).encode(), "names 257 tensors, at most 256"),
        (b'{"inputs": [], "id": ' + b"9" * 1_000_000 + b"}", "the body is not JSON"),
    ],
    ids=range(15),
)
def test_invalid_body_is_refused(rest: RestClient, body: bytes, expected: str) -> None:
    reply = rest.post(INFER, body)
    assert reply.status == 400
    assert expected in reply.error


@pytest.mark.parametrize("length", ["-1", "x", "1e3", "99999", "9" * 40, "0", "00"])
@pytest.mark.parametrize("body", [b"{}", b"", bytes(12)])
def test_invalid_json_length_is_refused(rest: RestClient, length: str, body: bytes) -> None:
    reply = rest.post(INFER, body, Inference_Header_Content_Length=length)
    assert reply.status == 400
    assert reply.error.startswith(f"Inference-Header-Content-Length: is {'0' if length == '00' else ''}")


def test_extra_binary_data_is_refused(rest: RestClient) -> None:
    text = json.dumps({"inputs": [tensor("FP32", [1, 3], [1, 2, 3])]}).encode()
    reply = rest.post(INFER, text + b"more", Inference_Header_Content_Length=str(len(text)))
    assert reply.error == "4 bytes follow the JSON and the binary data of the inputs"


def test_unknown_extensions_are_refused(rest: RestClient) -> None:
    shared = {"name": "x", "datatype": "FP32", "shape": [1, 3], "parameters": {"shared_memory_region": "r"}, "data": []}
    wanted = [{"name": "y", "parameters": {"classification": 2}}]
    given = tensor("FP32", [1, 3], [1, 2, 3])
    assert rest.infer("identity-fp32", given, outputs=wanted).status == 501
    assert rest.infer("identity-fp32", shared).status == 400
    assert rest.infer("identity-fp32", given, parameters={"sequence_id": 3}).status == 501
    assert rest.post(INFER, b"{}", Content_Encoding="br").status == 501


def test_too_large_body_is_refused(rest: RestClient, rest_server: ServerProcess) -> None:
    """By Content-Length, by the bytes received, and by the decompressed size."""
    counter = 'medserve_refused_total{reason="message_size"}'
    before = rest_server.sample(counter)
    too_long = 64 * 2**20 + 1
    announced = rest.post(INFER, b"", Content_Length=str(too_long))
    assert announced.status == 413
    assert f"the body has {too_long} bytes, at most" in announced.error
    bomb = rest.post(INFER, gzip.compress(bytes(too_long)), Content_Encoding="gzip")
    assert bomb.status == 413
    assert "decompressed" in bomb.error
    assert rest_server.sample(counter) == before + 2


def test_body_of_60_mebibytes_is_accepted(rest: RestClient) -> None:
    rows = np.zeros((1, 15 * 2**20), np.float32)
    shape = list(rows.shape)
    head = {
        "inputs": [{"name": "x", "datatype": "FP32", "shape": shape, "parameters": {"binary_data_size": rows.nbytes}}],
        "outputs": [{"name": "y", "parameters": {"binary_data": True}}],
    }
    text = json.dumps(head).encode()
    reply = rest.post(
        "/v2/models/any-rank-fp32/infer", text + rows.tobytes(), Inference_Header_Content_Length=str(len(text))
    )
    assert reply.status == 200, reply.body[:300]
    assert len(reply.body) - int(reply.headers["inference-header-content-length"]) == rows.nbytes
