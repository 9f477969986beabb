"""Requests to a server on a GPU, and the results of ONNX Runtime alone on the CPU."""

from collections.abc import Mapping
from pathlib import Path

import grpc
import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from gpu.device import PROVIDERS
from medserve_proto.inference import grpc_service_pb2 as pb
from medserve_proto.inference.grpc_service_pb2_grpc import GRPCInferenceServiceStub
from medserve_proto.v1.manifest_pb2 import Manifest
from medserve_server.config import Settings
from medserve_server.engine.manifest.reader import main_output, read_manifest
from medserve_server.engine.model_file import ModelFile
from medserve_server.engine.providers import Provider
from medserve_server.engine.session import Session
from medserve_server.registry.integrity import read_model
from waiting import PATIENCE

Array = NDArray[np.generic]
Outputs = Mapping[str, NDArray[np.float32]]

# The last one is the largest; ResNet-50 would take most of the time on a CPU.
CLASSIFIERS = ("chest-xray", "breast-cancer-risk", "article-cnn", *(() if PROVIDERS == ["cpu"] else ("resnet-50",)))
MOST_ROWS = 64

# Tolerance of a probability. Another order of summation changes it by 1e-6, TF32 by about 1e-3: medserve disables TF32
# for CUDA, but TensorRT may use it.
TOLERANCE: dict[Provider, float] = {"cpu": 1e-5, "cuda": 1e-4, "tensorrt": Settings().max_deviation}


def model_file(path: Path) -> ModelFile:
    return read_model(path, max_bytes=2**30, listed=None, public_key=None)


def manifest_of(session: Session) -> Manifest:
    manifest = read_manifest(session.path, session.metadata, session.inputs, session.outputs)
    assert manifest is not None
    return manifest


class Expected:
    """Expected results of the models in a repository."""

    def __init__(self, models: Path) -> None:
        self.models = models
        self._known: dict[str, tuple[str, Array, Outputs]] = {}

    def path(self, name: str) -> Path:
        return self.models / name / "1/model.onnx"

    def batch(self, name: str) -> tuple[str, Array, Outputs]:
        """For a model with a manifest: name of the main output, MOST_ROWS distinct rows, and all outputs for them."""
        if name not in self._known:
            session = Session(model_file(self.path(name)), "cpu", Settings())
            manifest = manifest_of(session)
            rows = different_rows(manifest, session.inputs[0].shape[1:])
            self._known[name] = main_output(manifest), rows, self.alone(name, rows)
        return self._known[name]

    def alone(self, name: str, rows: Array) -> Outputs:
        """Returns ONNX Runtime's results for rows, computed eight at a time."""
        session = ort.InferenceSession(self.path(name), providers=["CPUExecutionProvider"])
        names = [output.name for output in session.get_outputs()]
        parts = [session.run(names, {session.get_inputs()[0].name: rows[i : i + 8]}) for i in range(0, len(rows), 8)]
        return {name: np.concatenate(arrays) for name, arrays in zip(names, zip(*parts, strict=True), strict=True)}


def different_rows(manifest: Manifest, shape: tuple[int, ...]) -> Array:
    """Returns MOST_ROWS rows from the manifest's reference rows: blended images, patients with recombined features."""
    random = np.random.default_rng(3)
    count = len(manifest.reference)
    if manifest.WhichOneof("task") == "image_classification":
        pixels = np.stack([np.frombuffer(row.pixels, np.uint8) for row in manifest.reference]).astype(np.float64)
        shares = random.dirichlet(np.full(count, 0.2), MOST_ROWS)
        return (shares @ pixels).round().astype(np.uint8).reshape(MOST_ROWS, *shape)
    patients = np.array([row.features for row in manifest.reference], np.float32)
    return patients[random.integers(0, count, (MOST_ROWS, patients.shape[1])), np.arange(patients.shape[1])]


def request(name: str, tensor: str, rows: Array) -> pb.ModelInferRequest:
    datatype = "UINT8" if rows.dtype == np.uint8 else "FP32"
    inputs = [pb.ModelInferRequest.InferInputTensor(name=tensor, datatype=datatype, shape=rows.shape)]
    return pb.ModelInferRequest(model_name=name, inputs=inputs, raw_input_contents=[rows.tobytes()])


def infer(channel: grpc.Channel, name: str, tensor: str, rows: Array) -> Outputs:
    """All outputs, float32 each."""
    response = GRPCInferenceServiceStub(channel).ModelInfer(request(name, tensor, rows), timeout=PATIENCE)
    return {
        output.name: np.frombuffer(content, np.float32).reshape(tuple(output.shape))
        for output, content in zip(response.outputs, response.raw_output_contents, strict=True)
    }


def input_of(name: str) -> str:
    """Returns the input of a model with a manifest."""
    return "features" if name == "breast-cancer-risk" else "image"


def check(found: Outputs, expected: Outputs, main: str, rows: slice, tolerance: float) -> None:
    """The main output has probabilities; the scale of the other outputs varies."""
    assert set(found) == set(expected)
    np.testing.assert_allclose(found[main], expected[main][rows], rtol=0, atol=tolerance)
    for name in set(found) - {main}:
        np.testing.assert_allclose(found[name], expected[name][rows], rtol=max(0.01, tolerance), atol=tolerance * 10)
