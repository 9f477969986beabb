"""BentoML, over HTTP: its gRPC server is gone since 1.2. Pixels come as base64 in JSON, its quickest way in.

Its own binary encoding is a pickle, which it refuses from outside; an array as JSON numbers costs more.
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
        """One run for all the requests that BentoML joined."""
        pixels = np.frombuffer(b"".join(map(base64.b64decode, images)), np.uint8)
        (probabilities,) = self.session.run(["probabilities"], {"image": pixels.reshape(-1, 28, 28, 1)})
        return probabilities.tolist()  # type: ignore[no-any-return]
