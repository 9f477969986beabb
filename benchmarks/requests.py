"""Encodes requests to the servers and decodes their responses."""

import base64
import json

import numpy as np
from numpy.typing import NDArray

from benchmarks.servers import Protocol
from medserve_proto.inference import grpc_service_pb2 as oip

UNARY = "/inference.GRPCInferenceService/ModelInfer"
STREAM = "/inference.GRPCInferenceService/ModelStreamInfer"
CONTENT_TYPES: dict[Protocol, str] = {
    "json": "application/json",
    "octets": "application/octet-stream",
    "base64": "application/json",
}
VARIANTS = 8
"""Number of different requests in a load, sent in turn."""


def image_batches(rows: int) -> list[NDArray[np.uint8]]:
    """Returns batches of random images, the same in every run."""
    generator = np.random.default_rng(0)
    return [generator.integers(0, 256, (rows, 28, 28, 1), np.uint8) for _ in range(VARIANTS)]


def encode(images: NDArray[np.uint8], protocol: Protocol) -> bytes:
    """Encodes a request for these images."""
    if protocol == "octets":
        return images.tobytes()
    if protocol == "json":
        tensor = {"name": "image", "datatype": "UINT8", "shape": images.shape, "data": images.ravel().tolist()}
        return json.dumps({"inputs": [tensor]}).encode()
    if protocol == "base64":
        return json.dumps({"images": [base64.b64encode(image.tobytes()).decode() for image in images]}).encode()
    request = oip.ModelInferRequest(model_name="chest-xray", raw_input_contents=[images.tobytes()])
    request.inputs.add(name="image", datatype="UINT8", shape=images.shape)
    return request.SerializeToString()


def stream_status(answer: bytes) -> str:
    """Returns the status of a stream's response, whose first field is an error message and the second a result."""
    return "OK" if answer[:1] == b"\x12" else "ERROR"


def decode(answer: bytes, protocol: Protocol, stream: bool = False) -> NDArray[np.float32]:
    """Decodes the probabilities of a response."""
    if protocol == "octets":
        values = np.frombuffer(answer, np.float32)
    elif protocol == "json":
        values = np.array(json.loads(answer)["outputs"][0]["data"], np.float32)
    elif protocol == "base64":
        values = np.array(json.loads(answer), np.float32)
    else:
        response = (
            oip.ModelStreamInferResponse.FromString(answer).infer_response
            if stream
            else oip.ModelInferResponse.FromString(answer)
        )
        if response.raw_output_contents:
            values = np.frombuffer(response.raw_output_contents[0], np.float32)
        else:
            values = np.array(response.outputs[0].contents.fp32_contents, np.float32)
    return values.reshape(-1, 2)
