"""Requests of the Open Inference Protocol to the identity models of the tests."""

import numpy as np
from numpy.typing import NDArray

from medserve_proto.inference import grpc_service_pb2 as pb


def raw_request(model: str, array: NDArray[np.generic], datatype: str, request_id: str = "") -> pb.ModelInferRequest:
    tensor = pb.ModelInferRequest.InferInputTensor(name="x", datatype=datatype, shape=array.shape)
    return pb.ModelInferRequest(model_name=model, inputs=[tensor], raw_input_contents=[array.tobytes()], id=request_id)


def floats(*rows: list[float]) -> pb.ModelInferRequest:
    return raw_request("identity-fp32", np.array(rows, np.float32), "FP32")
