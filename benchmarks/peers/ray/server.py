"""Ray Serve over gRPC with the Open Inference Protocol, since its proxy supports the methods of any servicer."""

import logging
import os
import signal
import threading

import numpy as np
import onnxruntime as ort
import ray
from numpy.typing import NDArray
from ray import serve
from ray.serve.config import HTTPOptions, gRPCOptions

from medserve_proto.inference.grpc_service_pb2 import ModelInferRequest, ModelInferResponse

MAX_BATCH = int(os.environ["BENCH_MAX_BATCH"])
DELAY = float(os.environ["BENCH_DELAY_US"]) / 1e6
SERVICER = "medserve_proto.inference.grpc_service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server"


@serve.deployment(num_replicas=int(os.environ["BENCH_INSTANCES"]), max_ongoing_requests=256)
class ChestXray:
    """The ONNX file behind Ray Serve's batching."""

    def __init__(self) -> None:
        options = ort.SessionOptions()
        options.intra_op_num_threads = int(os.environ["BENCH_THREADS"])
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self.session = ort.InferenceSession(os.environ["BENCH_MODEL"], options, providers=["CPUExecutionProvider"])

    @serve.batch(max_batch_size=MAX_BATCH, batch_wait_timeout_s=DELAY)  # type: ignore[untyped-decorator]
    async def classify(self, requests: list[NDArray[np.uint8]]) -> list[NDArray[np.float32]]:
        """Runs the model once for all batched requests."""
        (probabilities,) = self.session.run(["probabilities"], {"image": np.concatenate(requests)})
        return np.split(probabilities, np.cumsum([len(images) for images in requests])[:-1])

    async def ModelInfer(self, request: ModelInferRequest) -> ModelInferResponse:  # noqa: N802 - the protocol's name
        """Handles a request from the proxy."""
        pixels = np.frombuffer(request.raw_input_contents[0], np.uint8).reshape(-1, 28, 28, 1)
        probabilities = await self.classify(pixels)
        response = ModelInferResponse(model_name="chest-xray", raw_output_contents=[probabilities.tobytes()])
        response.outputs.add(name="probabilities", datatype="FP32", shape=probabilities.shape)
        return response


if __name__ == "__main__":
    ray.init(_node_ip_address="127.0.0.1", include_dashboard=False, num_cpus=2, logging_level=logging.WARNING)
    serve.start(
        http_options=HTTPOptions(host="127.0.0.1", port=int(os.environ["BENCH_PORT"]) + 1),
        grpc_options=gRPCOptions(port=int(os.environ["BENCH_PORT"]), grpc_servicer_functions=[SERVICER]),
    )
    serve.run(ChestXray.bind())  # type: ignore[attr-defined]  # added by the decorator
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    stop.wait()
    ray.shutdown()
