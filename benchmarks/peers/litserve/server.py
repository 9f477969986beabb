"""LitServe over HTTP, with raw pixels as input and raw probabilities as output."""

import os
from collections.abc import Sequence
from typing import Annotated

import litserve
import numpy as np
import onnxruntime as ort
from fastapi import Body, Response
from numpy.typing import NDArray


class ChestXray(litserve.LitAPI):  # type: ignore[misc]  # litserve is not installed for type checking
    """The ONNX file behind LitServe's batching."""

    def setup(self, _device: str) -> None:
        """Loads the ONNX file."""
        options = ort.SessionOptions()
        options.intra_op_num_threads = int(os.environ["BENCH_THREADS"])
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self.session = ort.InferenceSession(os.environ["BENCH_MODEL"], options, providers=["CPUExecutionProvider"])

    def decode_request(self, request: Annotated[bytes, Body()]) -> NDArray[np.uint8]:
        """Decodes the body, which consists of raw pixels."""
        return np.frombuffer(request, np.uint8).reshape(-1, 28, 28, 1)

    def batch(self, inputs: Sequence[NDArray[np.uint8]]) -> tuple[NDArray[np.uint8], list[int]]:
        """Concatenates the rows of all requests, and returns them with the number of rows of each."""
        return np.concatenate(inputs), [len(images) for images in inputs]

    def predict(self, x: tuple[NDArray[np.uint8], list[int]]) -> list[NDArray[np.float32]]:
        """Runs the model once for all batched requests."""
        images, counts = x
        (probabilities,) = self.session.run(["probabilities"], {"image": images})
        return np.split(probabilities, np.cumsum(counts)[:-1])

    def unbatch(self, output: list[NDArray[np.float32]]) -> list[NDArray[np.float32]]:
        """Returns the output, which `predict` has already split."""
        return output

    def encode_response(self, output: NDArray[np.float32]) -> Response:
        """Encodes raw probabilities."""
        return Response(output.tobytes(), media_type="application/octet-stream")


if __name__ == "__main__":
    api = ChestXray(
        max_batch_size=int(os.environ["BENCH_MAX_BATCH"]), batch_timeout=float(os.environ["BENCH_DELAY_US"]) / 1e6
    )
    server = litserve.LitServer(
        api,
        accelerator="cpu",
        workers_per_device=int(os.environ["BENCH_INSTANCES"]),
        fast_queue=os.environ["BENCH_FAST_QUEUE"] == "1",
    )
    server.run(
        host="127.0.0.1",
        port=int(os.environ["BENCH_PORT"]),
        num_api_servers=int(os.environ["BENCH_FRONTS"]),
        generate_client_file=False,
        log_level="warning",
        access_log=False,
    )
