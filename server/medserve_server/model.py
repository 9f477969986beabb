"""One version of one model, loaded, checked and warm."""

import asyncio
import hashlib
import logging
import re
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from medserve_proto.v1.manifest_pb2 import Manifest
from medserve_server.batcher import Arrays, Batcher
from medserve_server.codec import DATATYPES
from medserve_server.config import Settings
from medserve_server.errors import ModelLoadError
from medserve_server.images import ImageReader
from medserve_server.manifest import read_manifest
from medserve_server.metrics import Metrics, ModelMetrics
from medserve_server.patients import PatientReader
from medserve_server.session import Session, Tensors, TensorSpec

log = logging.getLogger(__name__)

# What exporters call a first axis that counts independent rows. Under any other name, requests to a model
# without a manifest are never joined: its first axis may be a sequence, and rows would mix.
BATCH_SYMBOL = re.compile(r"n|.*batch.*", re.IGNORECASE)


class Model:
    """A model that answers: its session, its queue, its manifest and what reads its inputs."""

    def __init__(self, name: str, version: str, path: Path, settings: Settings, metrics: Metrics) -> None:
        """Loads the file and runs it once on zeros.

        Raises:
            ModelLoadError: the file can't be served; the message says why.
        """
        started = time.monotonic()
        self.name = name
        self.version = version
        self.sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
        self.session = Session(path, settings)
        self.manifest = read_manifest(path, self.session.metadata, self.session.inputs, self.session.outputs)
        self.reader = _reader(self.manifest, settings)
        self.output_names = tuple(spec.name for spec in self.session.outputs)
        self.max_batch_rows = settings.max_batch_rows if _joins_rows(self.manifest, self.session) else 0
        self.metrics = ModelMetrics(metrics, name, version)
        self._batcher = Batcher(
            self.session.run,
            max_rows=self.max_batch_rows,
            max_pending=settings.max_pending_requests,
            observe=self.metrics.executed,
        )
        self._warm_up(path)
        session = self.session
        seconds = time.monotonic() - started
        self.metrics.loaded(session.provider, session.threads, session.precision, seconds, self._batcher.__len__)

    async def infer(
        self,
        inputs: Tensors,
        rows: int,
        outputs: Sequence[str] | None = None,
        deadline: float | None = None,
    ) -> Arrays:
        """Runs the model on one request's rows, together with those of other requests where it can.

        Args:
            inputs: every input of the graph, already checked against it.
            rows: size of the first axis.
            outputs: the wanted ones; None: all.
            deadline: on the clock of `time.monotonic`.

        Raises:
            ServingError: the queue is full, the deadline passed, or the model failed.
        """
        names = self.output_names if outputs is None else tuple(outputs)
        if self.max_batch_rows == 0 or rows <= self.max_batch_rows:
            return await self._batcher.submit(inputs, rows, names, deadline)
        parts: list[asyncio.Future[Arrays]] = []
        try:
            for start in range(0, rows, self.max_batch_rows):
                part = {name: array[start : start + self.max_batch_rows] for name, array in inputs.items()}
                size = min(self.max_batch_rows, rows - start)
                parts.append(self._batcher.submit(part, size, names, deadline))
            results = [await part for part in parts]
        finally:
            for waiting in parts:
                waiting.cancel()  # does nothing to those that are done
        return {name: np.concatenate([result[name] for result in results]) for name in names}

    def close(self) -> None:
        """Frees the model's thread. Call it when no request is left."""
        self._batcher.close()

    def _warm_up(self, path: Path) -> None:
        """Runs zeros, so that the first request finds kernels chosen and memory allocated."""
        if any(-1 in spec.shape[1:] for spec in self.session.inputs):
            log.info("%s: not warmed up, since its inputs have free sizes", path)
            return
        try:
            self.session.run({spec.name: _zeros(spec) for spec in self.session.inputs}, self.output_names)
        except Exception as error:  # ONNX Runtime's own exceptions have no common base but this
            if self.manifest is not None:
                raise ModelLoadError(f"{path}: the model fails on zeros: {error}") from error
            log.warning("%s: the model fails on zeros, so it is not warmed up: %s", path, error)


def _reader(manifest: Manifest | None, settings: Settings) -> ImageReader | PatientReader | None:
    if manifest is None:
        return None
    if manifest.WhichOneof("task") == "patient_risk":
        return PatientReader(manifest.patient_risk)
    return ImageReader(manifest.image_classification.input, int(settings.max_image_megapixels * 1e6))


def _joins_rows(manifest: Manifest | None, session: Session) -> bool:
    """Whether rows of different requests may share a run."""
    symbols = {spec.batch_symbol for spec in session.inputs + session.outputs}
    if manifest is not None:
        return True  # the manifest was checked against the graph: its first axis is the batch
    return len(symbols) == 1 and all(symbol is not None and BATCH_SYMBOL.fullmatch(symbol) for symbol in symbols)


def _zeros(spec: TensorSpec) -> np.ndarray[tuple[int, ...], np.dtype[np.generic]]:
    shape = tuple(1 if size == -1 else size for size in spec.shape)
    return np.full(shape, "", object) if spec.datatype == "BYTES" else np.zeros(shape, DATATYPES[spec.datatype].dtype)
