"""BentoML over HTTP, since 1.2 removed its gRPC server. Pixels are base64 in JSON, its fastest input encoding.

Its own binary encoding is pickle, which it rejects from clients; arrays of JSON numbers are slower.
"""

import base64
import os

import bentoml
import numpy as np
import onnxruntime as ort

MAX_BATCH = int(os.environ["BENCH_MAX_BATCH"])
LATENCY_MS = int(os.environ["BENCH_LATENCY_MS"])


@bentoml.service(workers=int(os.environ["BENCH_INSTANCES"]), traffic={"timeout": 60, "max_concurrency": 1024})
class ChestXray:
    """The ONNX file behind BentoML's adaptive batching."""

    def __init__(self) -> None:
        options = ort.SessionOptions()
        options.intra_op_num_threads = int(os.environ["BENCH_THREADS"])
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self.session = ort.InferenceSession(os.environ["BENCH_MODEL"], options, providers=["CPUExecutionProvider"])

    @bentoml.api(batchable=True, batch_dim=0, max_batch_size=MAX_BATCH, max_latency_ms=LATENCY_MS)  # type: ignore[untyped-decorator]
    async def predict(self, images: list[str]) -> list[list[float]]:
        """Runs the model once for all batched requests."""
        pixels = np.frombuffer(b"".join(map(base64.b64decode, images)), np.uint8)
        (probabilities,) = self.session.run(["probabilities"], {"image": pixels.reshape(-1, 28, 28, 1)})
        return probabilities.tolist()  # type: ignore[no-any-return]
