"""Calls a server through tritonclient, which needs a separate environment; prints the responses as JSON.

medserve's client is imported first, since both must work in one process.
"""

import json
import queue
import sys
from collections.abc import Callable
from typing import Any

import ml_dtypes
import numpy as np
import tritonclient.grpc as triton
from tritonclient.utils import InferenceServerException

import medserve_client


def tensor(name: str, array: np.ndarray[Any, Any], datatype: str) -> triton.InferInput:
    made = triton.InferInput(name, list(array.shape), datatype)
    made.set_data_from_numpy(array)
    return made


def status(call: Callable[[], object]) -> str:
    try:
        call()
    except InferenceServerException as error:
        return str(error.status())
    return "OK"


def stream(client: triton.InferenceServerClient, inputs: list[triton.InferInput]) -> list[list[str]]:
    results: queue.Queue[tuple[triton.InferResult | None, Exception | None]] = queue.Queue()
    client.start_stream(callback=lambda result, error: results.put((result, error)))
    for number in range(5):
        client.async_stream_infer("identity-fp32" if number != 2 else "nothing", inputs, request_id=str(number))
    found = []
    for _ in range(5):
        result, error = results.get(timeout=300)
        found.append([str(error) if error else result.get_response().id])  # type: ignore[union-attr]
    client.stop_stream()
    return found


SHAPES = [(), (1,), (3,), (2, 3), (0,), (0, 3), (3, 0), (1, 2, 3, 4)]


def output_shape(
    client: triton.InferenceServerClient, model: str, array: np.ndarray[Any, Any], datatype: str
) -> list[int]:
    """Returns the output shape of a model y = x and checks that the values are equal."""
    output = client.infer(model, [tensor("x", array, datatype)]).as_numpy("y")
    values = [value.decode() if isinstance(value, bytes) else value for value in output.ravel()]
    assert values == array.ravel().tolist()
    return list(output.shape)


def main(target: str) -> dict[str, Any]:
    client = triton.InferenceServerClient(target)
    rows = np.arange(6, dtype=np.float32).reshape(2, 3)
    strings = np.array([["a", "ä", ""]], dtype=object)
    results: queue.Queue[tuple[triton.InferResult, Exception | None]] = queue.Queue()
    client.async_infer(
        "identity-fp32",
        [tensor("x", rows, "FP32")],
        lambda result, error: results.put((result, error)),
        request_id="async",
    )
    asynchronous, error = results.get(timeout=300)
    assert error is None
    with medserve_client.Client(target) as ours:
        models = [model.name for model in ours.models()]
    bfloat16 = np.array([[1.5, -2.0, 3.0]], ml_dtypes.bfloat16)
    return {
        "live": client.is_server_live(),
        "ready": client.is_server_ready(),
        "model_ready": client.is_model_ready("chest-xray", "2"),
        "unknown_ready": client.is_model_ready("nothing"),
        "metadata": client.get_server_metadata(as_json=True),
        "model_metadata": client.get_model_metadata("chest-xray", as_json=True),
        "config": client.get_model_config("chest-xray", as_json=True),
        "index": client.get_model_repository_index(as_json=True),
        "infer": client.infer("identity-fp32", [tensor("x", rows, "FP32")], request_id="7").as_numpy("y").tolist(),
        "strings": [
            element.decode()
            for element in client.infer("identity-bytes", [tensor("x", strings, "BYTES")]).as_numpy("y").ravel()
        ],
        "bfloat16": client.infer("identity-bf16", [tensor("x", bfloat16, "BF16")]).as_numpy("y").tolist(),
        "float16": client.infer("identity-fp16", [tensor("x", rows.astype(np.float16), "FP16")]).as_numpy("y").tolist(),
        "no_inputs": client.infer("constant", []).as_numpy("y").tolist(),
        "any_rank": [output_shape(client, "any-rank-fp32", np.zeros(shape, np.float32), "FP32") for shape in SHAPES],
        "any_rank_strings": [
            output_shape(client, "any-rank-bytes", np.full(shape, "\u00e4", object), "BYTES") for shape in SHAPES
        ],
        "empty": output_shape(client, "sequence", np.zeros((0, 3), np.float32), "FP32"),
        "asynchronous": asynchronous.get_response().id,
        "stream": stream(client, [tensor("x", rows, "FP32")]),
        "statistics": client.get_inference_statistics("identity-fp32", as_json=True),
        "load": status(lambda: client.load_model("chest-xray")),
        "unload": status(lambda: client.unload_model("chest-xray")),
        "wrong_name": status(lambda: client.infer("nothing", [tensor("x", rows, "FP32")])),
        "wrong_datatype": status(lambda: client.infer("identity-fp32", [tensor("x", rows.astype(np.float64), "FP64")])),
        "ours": models,
    }


if __name__ == "__main__":
    sys.stdout.write(json.dumps(main(sys.argv[1])))
