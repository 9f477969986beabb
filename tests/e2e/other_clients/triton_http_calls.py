"""Calls a server through tritonclient.http, which needs a separate environment; prints the responses as JSON."""

import json
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import tritonclient.http as triton
from tritonclient.utils import InferenceServerException


def tensor(name: str, array: np.ndarray[Any, Any], datatype: str, *, binary: bool) -> triton.InferInput:
    made = triton.InferInput(name, list(array.shape), datatype)
    made.set_data_from_numpy(array, binary_data=binary)
    return made


def status(call: Callable[[], object]) -> list[str | None]:
    try:
        call()
    except InferenceServerException as error:
        return [error.status(), error.message()]
    return ["OK", ""]


def infer(client: triton.InferenceServerClient, *, binary: bool, **options: Any) -> list[Any]:  # noqa: ANN401
    rows = np.arange(6, dtype=np.float32).reshape(2, 3)
    outputs = [triton.InferRequestedOutput("y", binary_data=binary)]
    inputs = [tensor("x", rows, "FP32", binary=binary)]
    result = client.infer("identity-fp32", inputs, outputs=outputs, request_id="7", **options)
    assert result.get_response()["id"] == "7"
    found: list[Any] = result.as_numpy("y").tolist()
    return found


def main(target: str) -> dict[str, Any]:
    client = triton.InferenceServerClient(target, concurrency=4)
    rows = np.arange(6, dtype=np.float32).reshape(2, 3)
    strings = np.array([["a", "ä", ""]], dtype=object)
    found: dict[str, Any] = {
        "live": client.is_server_live(),
        "ready": client.is_server_ready(),
        "model_ready": client.is_model_ready("chest-xray", "2"),
        "unknown_ready": client.is_model_ready("nothing"),
        "metadata": client.get_server_metadata(),
        "model_metadata": client.get_model_metadata("chest-xray"),
        "config": client.get_model_config("chest-xray"),
        "index": client.get_model_repository_index(),
        "no_inputs": client.infer("constant", []).as_numpy("y").tolist(),
        "infer": [infer(client, binary=binary) for binary in (False, True)],
        "compressed": [
            infer(client, binary=binary, request_compression_algorithm=way, response_compression_algorithm=way)
            for binary in (False, True)
            for way in ("gzip", "deflate")
        ],
        "default_outputs": client.infer("identity-fp32", [tensor("x", rows, "FP32", binary=True)])
        .as_numpy("y")
        .tolist(),
        "strings": [
            [
                element.decode() if isinstance(element, bytes) else element
                for element in client.infer(
                    "identity-bytes",
                    [tensor("x", strings, "BYTES", binary=binary)],
                    outputs=[triton.InferRequestedOutput("y", binary_data=binary)],
                )
                .as_numpy("y")
                .ravel()
            ]
            for binary in (False, True)
        ],
        "float16": client.infer("identity-fp16", [tensor("x", rows.astype(np.float16), "FP16", binary=True)])
        .as_numpy("y")
        .tolist(),
        "asynchronous": client.async_infer("identity-fp32", [tensor("x", rows, "FP32", binary=True)])
        .get_result()
        .as_numpy("y")
        .tolist(),
        "with_parameters": client.infer(
            "identity-fp32", [tensor("x", rows, "FP32", binary=True)], priority=2, timeout=60_000_000
        )
        .as_numpy("y")
        .tolist(),
        "statistics": client.get_inference_statistics("identity-fp32"),
        "all_statistics": len(client.get_inference_statistics()["model_stats"]),
        "load": status(lambda: client.load_model("chest-xray")),
        "unload": status(lambda: client.unload_model("chest-xray")),
        "wrong_name": status(lambda: client.infer("nothing", [tensor("x", rows, "FP32", binary=True)])),
        "wrong_datatype": status(
            lambda: client.infer("identity-fp32", [tensor("x", rows.astype(np.float64), "FP64", binary=False)])
        ),
    }
    client.close()
    return found


if __name__ == "__main__":
    sys.stdout.write(json.dumps(main(sys.argv[1])))
