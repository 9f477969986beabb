"""The model in Triton's Python backend, which runs the requests that Triton batched in one ONNX Runtime call."""

import os
from collections.abc import Sequence
from typing import Any

import numpy as np
import onnxruntime as ort
import triton_python_backend_utils as triton


class TritonPythonModel:
    """The class that the backend loads from this file."""

    def initialize(self, _arguments: dict[str, str]) -> None:
        """Loads the ONNX file."""
        options = ort.SessionOptions()
        options.intra_op_num_threads = int(os.environ["BENCH_THREADS"])
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self.session = ort.InferenceSession(os.environ["BENCH_MODEL"], options, providers=["CPUExecutionProvider"])

    def execute(self, requests: Sequence[Any]) -> list[Any]:
        """Runs the model once for all batched requests."""
        images = [triton.get_input_tensor_by_name(request, "image").as_numpy() for request in requests]
        batch = images[0] if len(images) == 1 else np.concatenate(images)
        (probabilities,) = self.session.run(["probabilities"], {"image": batch})
        ends = np.cumsum([len(image) for image in images])
        return [
            triton.InferenceResponse([triton.Tensor("probabilities", probabilities[end - len(image) : end])])
            for image, end in zip(images, ends, strict=True)
        ]
