"""A minimal grpc.aio server that runs the model in the handler, as a baseline.

`python -m benchmarks.plain PORT`. It has no validation, no metrics and no batching.
"""

import asyncio
import sys

import grpc
import numpy as np
import onnxruntime as ort
from grpc import aio
from numpy.typing import NDArray

from benchmarks.servers import MODEL
from medserve_proto.inference import grpc_service_pb2 as pb


def _read(request: pb.ModelInferRequest) -> NDArray[np.uint8]:
    return np.frombuffer(request.raw_input_contents[0], np.uint8).reshape(tuple(request.inputs[0].shape))


def _answer(probabilities: NDArray[np.float32]) -> pb.ModelInferResponse:
    response = pb.ModelInferResponse(model_name="chest-xray", raw_output_contents=[probabilities.tobytes()])
    response.outputs.add(name="probabilities", datatype="FP32", shape=probabilities.shape)
    return response


async def main(port: int) -> None:
    """Serves until the process is terminated."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(MODEL, options, providers=["CPUExecutionProvider"])

    async def infer(request: pb.ModelInferRequest, context: object) -> pb.ModelInferResponse:  # noqa: ARG001
        (probabilities,) = session.run(["probabilities"], {"image": _read(request)})
        return _answer(probabilities)

    handler = grpc.unary_unary_rpc_method_handler(
        infer, pb.ModelInferRequest.FromString, pb.ModelInferResponse.SerializeToString
    )
    server = aio.server()
    server.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler("inference.GRPCInferenceService", {"ModelInfer": handler}),)
    )
    server.add_insecure_port(f"127.0.0.1:{port}")
    await server.start()
    await server.wait_for_termination()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1])))
