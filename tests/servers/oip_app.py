"""A small ASGI application that speaks the Open Inference Protocol over HTTP, for tests of clients.

It has the model `pair`, which takes `image` and `age` and returns them under the same names, and `sizes`, which takes
an `image` of any size; requests are checked as the protocol specifies. Other behavior is selected by the model's name,
e.g. `http-429` fails with that status.
"""

import json
import math
from collections.abc import Awaitable, Callable
from typing import Any

import numpy as np

Scope = dict[str, Any]
Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]

INPUTS = [
    {"name": "image", "datatype": "UINT8", "shape": [-1, 4, 4, 1]},
    {"name": "age", "datatype": "FP32", "shape": [-1, 1]},
]
ANY_SIZE = [{"name": "image", "datatype": "UINT8", "shape": [-1, -1, -1, 3]}]
DTYPES = {"UINT8": "<u1", "FP32": "<f4"}
TOKEN = b"Bearer ward-token"
BINARY = b"inference-header-content-length"


class Refused(Exception):
    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] != "http":
        raise NotImplementedError(scope["type"])
    body = b""
    more = True
    while more:
        event = await receive()
        body += event.get("body", b"")
        more = event.get("more_body", False)
    headers = [(b"content-type", b"application/json")]
    try:
        status, parts = 200, answer(scope["method"], scope["path"], dict(scope["headers"]), body)
        if len(parts) > 1:
            headers = [(b"content-type", b"application/octet-stream"), (BINARY, b"%d" % len(parts[0]))]
    except Refused as error:
        status, parts = error.status, [json.dumps({"error": str(error)}).encode()]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": b"".join(parts)})


def answer(method: str, path: str, headers: dict[bytes, bytes], body: bytes) -> list[bytes]:
    """Returns the JSON of a response and the binary tensors after it."""
    match method, path.strip("/").split("/"):
        case _, ["v2", "models", "locked", *_] if headers.get(b"authorization") != TOKEN:
            raise Refused(401, "a token is needed")
        case "GET", ["v2", "models", name] | ["v2", "models", name, "versions", "1"]:
            return [json.dumps(metadata(name)).encode()]
        case "POST", ["v2", "models", name, "infer"] | ["v2", "models", name, "versions", "1", "infer"]:
            metadata(name)
            return infer(name, headers, body)
    raise Refused(404, f"nothing at {method} {path}")


def metadata(name: str) -> dict[str, Any]:
    known: dict[str, Any] = {"name": name, "versions": ["1"], "platform": "onnxruntime_onnx", "outputs": INPUTS}
    if name == "text":
        return {**known, "inputs": [{"name": "note", "datatype": "BYTES", "shape": [-1]}]}
    if name == "sizes":
        return {**known, "inputs": ANY_SIZE}
    if name == "large":
        return {**known, "inputs": [{"name": "image", "datatype": "UINT8", "shape": [-1, 2**40]}]}
    if name == "damaged":
        return {**known, "inputs": [{"name": "image"}]}
    if name not in ("pair", "locked") and not name.startswith("http-"):
        raise Refused(404, f"no model {name}; there is pair")
    return {**known, "inputs": INPUTS}


CALLS = {"http": 0}


def infer(name: str, headers: dict[bytes, bytes], body: bytes) -> list[bytes]:
    length = int(headers.get(BINARY, b"%d" % len(body)))
    request, rest = json.loads(body[:length]), body[length:]
    specs = ANY_SIZE if name == "sizes" else INPUTS
    arrays = [array(tensor, rest, specs) for tensor in request["inputs"]]
    rest = rest[sum(tensor.get("parameters", {}).get("binary_data_size", 0) for tensor in request["inputs"]) :]
    if rest or [tensor["name"] for tensor in request["inputs"]] != [one["name"] for one in specs]:
        raise Refused(400, "inputs: expected those of the metadata, and nothing behind them")
    if name.startswith("http-"):
        CALLS["http"] += 1
        if CALLS["http"] > 1:  # the first request is a check before the load
            raise Refused(int(name.removeprefix("http-")), "refused on purpose")
    binary = request.get("parameters", {}).get("binary_data_output", False)
    outputs = [output(spec, value, binary) for spec, value in zip(specs, arrays, strict=True)]
    document = {"model_name": name, "model_version": "1", "outputs": outputs}
    return [json.dumps(document).encode(), *([value.tobytes() for value in arrays] if binary else ())]


def array(tensor: dict[str, Any], rest: bytes, specs: list[dict[str, Any]]) -> np.ndarray[Any, Any]:
    spec = next((one for one in specs if one["name"] == tensor["name"]), None)
    if spec is None or tensor["datatype"] != spec["datatype"] or not fits(tensor["shape"], spec["shape"]):
        raise Refused(400, f"inputs: {tensor['name']} is not as the model's metadata says")
    dtype = np.dtype(DTYPES[tensor["datatype"]])
    if (size := tensor.get("parameters", {}).get("binary_data_size")) is not None:
        start = 0 if tensor["name"] == "image" else len(rest) - size
        flat = np.frombuffer(rest[start : start + size], dtype)
    else:
        flat = np.array(tensor["data"], dtype)
    if flat.size != math.prod(tensor["shape"]):
        raise Refused(400, f"inputs: {tensor['name']} has {flat.size} elements")
    return flat.reshape(tensor["shape"])


def fits(shape: list[int], declared: list[int]) -> bool:
    return len(shape) == len(declared) and all(size in (-1, one) for one, size in zip(shape, declared, strict=True))


def output(spec: dict[str, Any], value: np.ndarray[Any, Any], binary: bool) -> dict[str, Any]:
    declared = {"name": spec["name"], "datatype": spec["datatype"], "shape": list(value.shape)}
    if binary:
        return {**declared, "parameters": {"binary_data_size": value.nbytes}}
    return {**declared, "data": value.ravel().tolist()}
