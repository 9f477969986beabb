"""A custom model on KServe's Python SDK, over gRPC. Batching is done by KServe's agent, not by the SDK."""

import asyncio
import os

import numpy as np
import onnxruntime as ort
from kserve import InferOutput, InferRequest, InferResponse, Model, ModelServer
from kserve.protocol.grpc.server import GRPCServer


class ChestXray(Model):  # type: ignore[misc]  # kserve is not installed for type checking
    """The ONNX file behind KServe's data plane."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        options = ort.SessionOptions()
        options.intra_op_num_threads = int(os.environ["BENCH_THREADS"])
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self.session = ort.InferenceSession(os.environ["BENCH_MODEL"], options, providers=["CPUExecutionProvider"])
        self.ready = True

    async def predict(self, payload: InferRequest, *_arguments: object, **_more: object) -> InferResponse:
        """Runs the model for one request."""
        images = np.asarray(payload.inputs[0].as_numpy())
        (probabilities,) = self.session.run(["probabilities"], {"image": images})
        output = InferOutput("probabilities", list(probabilities.shape), "FP32")
        output.set_data_from_numpy(probabilities, binary_data=True)
        return InferResponse(payload.id, self.name, [output])


# gRPC only: the REST server is not used, and cannot be bound to the loopback interface.
server = ModelServer(enable_latency_logging=False)
server.register_model(ChestXray("chest-xray"))
grpc_server = GRPCServer(
    int(os.environ["BENCH_PORT"]),
    server.dataplane,
    server.model_repository_extension,
    kwargs={"grpc_max_send_message_length": -1, "grpc_max_receive_message_length": -1},
)
asyncio.run(grpc_server.start(int(os.environ["BENCH_THREADS"])))
