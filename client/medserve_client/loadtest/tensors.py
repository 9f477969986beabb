"""Synthetic requests of the Open Inference Protocol over HTTP: tensors in JSON or as binary data after it."""

import json
import math

import numpy as np
from numpy.typing import NDArray

from medserve_client.channel import DEFAULT_MAX_MESSAGE_BYTES
from medserve_client.loadtest.requests import Workload
from medserve_client.loadtest.rest import BINARY_HEADER, Service, Tensor, infer, inputs, model_path

# Number of distinct requests, and their maximum total size in bytes.
_REQUESTS, _BYTES = 64, 32 * 1024 * 1024
_DTYPES = {
    "BOOL": np.bool_,
    "UINT8": np.uint8,
    "UINT16": np.uint16,
    "UINT32": np.uint32,
    "UINT64": np.uint64,
    "INT8": np.int8,
    "INT16": np.int16,
    "INT32": np.int32,
    "INT64": np.int64,
    "FP16": np.float16,
    "FP32": np.float32,
    "FP64": np.float64,
}
_FREE_SIZE = 256
"""Size where the model accepts any, e.g. of images."""
_DECIMALS = 4  # of synthetic numbers, as is typical of measured values


def tensor_workload(service: Service, model: str, version: str, *, batch: int, binary: bool, seed: int) -> Workload:
    """Fetches the model's inputs from the server, generates requests and sends the first one as a check.

    Raises:
        InferenceError: the server rejects the request or is unreachable.
        ValueError: no requests can be generated for the model, or the response does not follow the protocol.
    """
    tensors = inputs(service, model, version)
    requests = _made_up(tensors, batch, seed)
    headers = [("Content-Type", "application/json")]
    payloads = [_json_request(tensors, arrays) for arrays in requests]
    if binary:
        head = _binary_head(tensors, requests[0])  # the same for all requests: their tensors have the same shapes
        headers = [("Content-Type", "application/octet-stream"), (BINARY_HEADER, str(len(head)))]
        payloads = [head + b"".join(map(_little_endian, arrays)) for arrays in requests]
    path = f"{model_path(model, version)}/infer"
    answered = infer(service, path, payloads[0], headers)
    return Workload(model, version or answered, path, payloads, http_headers=headers)


def _made_up(tensors: list[Tensor], batch: int, seed: int) -> list[list[NDArray[np.generic]]]:
    """Returns an array for every tensor, for several distinct requests."""
    shapes = [_shape(tensor, batch) for tensor in tensors]
    size = sum(
        math.prod(shape) * np.dtype(_DTYPES[tensor.datatype]).itemsize
        for tensor, shape in zip(tensors, shapes, strict=True)
    )
    if size > DEFAULT_MAX_MESSAGE_BYTES:
        raise ValueError(f"a request would have {size} bytes; the maximum is {DEFAULT_MAX_MESSAGE_BYTES}")
    random = np.random.default_rng(seed)
    return [
        [_noise(tensor.datatype, shape, random) for tensor, shape in zip(tensors, shapes, strict=True)]
        for _ in range(max(1, min(_REQUESTS, _BYTES // max(1, size))))
    ]


def _shape(tensor: Tensor, batch: int) -> tuple[int, ...]:
    if tensor.datatype not in _DTYPES:
        raise ValueError(f"input {tensor.name} has datatype {tensor.datatype}, for which no data can be generated")
    first, *rest = tensor.shape or (1,)
    if first != -1 and batch != 1:
        raise ValueError(
            f"input {tensor.name} has shape {list(tensor.shape)}; expected --batch 1, or -1 as the first size"
        )
    return (batch if first == -1 else first, *(_FREE_SIZE if size == -1 else size for size in rest))


def _noise(datatype: str, shape: tuple[int, ...], random: np.random.Generator) -> NDArray[np.generic]:
    dtype = np.dtype(_DTYPES[datatype])
    if dtype.kind == "f":
        return random.random(shape).round(_DECIMALS).astype(dtype)
    highest = {"BOOL": 1, "INT8": 127}.get(datatype, 255)
    return random.integers(0, highest, shape, endpoint=True).astype(dtype)


def _declared(tensor: Tensor, array: NDArray[np.generic]) -> dict[str, object]:
    return {"name": tensor.name, "shape": list(array.shape), "datatype": tensor.datatype}


def _json_request(tensors: list[Tensor], arrays: list[NDArray[np.generic]]) -> bytes:
    declared = [
        {**_declared(tensor, array), "data": _numbers(array)} for tensor, array in zip(tensors, arrays, strict=True)
    ]
    return json.dumps({"inputs": declared}, separators=(",", ":")).encode()


def _numbers(array: NDArray[np.generic]) -> list[float]:
    """Returns the rounded numbers: a float32 converted to double would be printed with all of its digits."""
    flat = array.ravel()
    numbers: list[float] = (flat.astype(np.float64).round(_DECIMALS) if flat.dtype.kind == "f" else flat).tolist()
    return numbers


def _binary_head(tensors: list[Tensor], arrays: list[NDArray[np.generic]]) -> bytes:
    """Returns the JSON that precedes a request's binary tensors (Triton's binary tensor data extension)."""
    declared = [
        {**_declared(tensor, array), "parameters": {"binary_data_size": array.nbytes}}
        for tensor, array in zip(tensors, arrays, strict=True)
    ]
    document = {"inputs": declared, "parameters": {"binary_data_output": True}}
    return json.dumps(document, separators=(",", ":")).encode()


def _little_endian(array: NDArray[np.generic]) -> bytes:
    return array.astype(array.dtype.newbyteorder("<")).tobytes()
