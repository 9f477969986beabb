"""An ONNX Runtime session: its execution provider, its input and output tensors, and a call to run it."""

import ctypes
import math
import re
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from medserve_server.config import Settings
from medserve_server.engine.datatypes import DATATYPES, ORT_TYPES
from medserve_server.engine.model_file import CHECKSUMS_FILE, ModelFile
from medserve_server.engine.providers import (
    GPU_PROVIDERS,
    ONNX_NAMES,
    SHAPE_SPECIALIZING_PROVIDERS,
    Provider,
    add_provider,
)
from medserve_server.errors import DeadlineExceeded, ModelLoadError, ProviderUnavailable, TransientLoadError

# Models whose estimated cost (multiplications times bytes per weight) is below this run on one thread, since
# parallelizing them costs more than it saves. The image model that ships with medserve has 7e8 and takes about
# 0.9 ms per row on one thread.
SINGLE_THREAD_MAX_COST = 2e9

OVERDUE = "the model run exceeded the server's time limit (--max-run-seconds)"

EXTERNAL_DATA_FOLDER = "session.model_external_initializers_file_folder_path"
EXTERNAL_DATA_ERROR = re.compile(r'External data path[^"]*(?:"(?P<path>[^"]*)")?')
# ONNX Runtime errors caused by the system: an errno while reading external data, out of memory, out of threads.
SYSTEM_ERROR = re.compile(r"SystemError : \d+|Failed to allocate memory|bad_alloc|pthread_create failed")
ONNX_BFLOAT16 = 16  # onnx.TensorProto.BFLOAT16, defined here to avoid a dependency on the onnx package

# Tensors by name. BF16, which NumPy lacks, is stored as its bit pattern in uint16; BYTES as str objects.
Tensors = Mapping[str, NDArray[np.generic]]


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """Name, datatype and shape of an input or output of the graph."""

    name: str
    datatype: str
    """Open Inference Protocol name."""
    shape: tuple[int, ...]
    """-1 for dynamic axes. Empty for a scalar and for a tensor of unknown rank: ONNX Runtime does not distinguish the
    two, and accepts any shape for both."""
    batch_symbol: str | None
    """Symbolic name of the first axis if it is dynamic and named."""
    row_bytes: int | None = field(init=False)
    """Bytes per row of a numeric tensor whose first axis is dynamic and whose other axes are fixed; None for any other
    tensor."""

    def __post_init__(self) -> None:
        numbers = self.shape[:1] == (-1,) and -1 not in self.shape[1:] and self.datatype not in {"BYTES", "BOOL"}
        row_bytes = math.prod(self.shape[1:]) * DATATYPES[self.datatype].dtype.itemsize if numbers else None
        object.__setattr__(self, "row_bytes", row_bytes)


class Owner(Protocol):
    """Notified when runs of its session take too long."""

    def overdue(self) -> None:
        """Called when a run was asked to terminate."""

    def suspend(self, latest: float) -> None:
        """Called repeatedly while runs that began before `latest`, on the clock of `time.monotonic`, do not end."""

    def resume(self) -> None:
        """Called when these runs have ended."""


@dataclass(frozen=True, slots=True)
class Run:
    """A run in progress."""

    session: "Session"
    options: ort.RunOptions
    began: float
    """On the clock of `time.monotonic`."""


RUNS: dict[int, Run] = {}
"""All runs in progress in this process, by thread."""


class Session:
    """A loaded ONNX model. `run` may be called from any thread."""

    def __init__(self, file: ModelFile, provider: Provider, settings: Settings) -> None:
        """Loads a file with an execution provider.

        On the CPU, small models get one thread and all others one thread per CPU, unless --threads is set.

        Raises:
            ModelLoadError: ONNX Runtime cannot load the model with this provider.
            ProviderUnavailable: ONNX Runtime cannot initialize this provider.
        """
        self.provider = provider
        self.path = file.path
        self._file: ModelFile | None = file
        self._settings = settings
        self.threads = settings.threads or settings.cpus
        self._load()
        self.inputs = tuple(_spec(file.path, "input", tensor) for tensor in self._session.get_inputs())
        self.outputs = tuple(_spec(file.path, "output", tensor) for tensor in self._session.get_outputs())
        if provider == "cpu" and settings.threads is None and self.threads > 1 and _is_small(file, self.inputs):
            self.threads = 1
            self._load()
        # I/O binding returns GPU results in host memory, and BF16 tensors exist only as OrtValues.
        self._uses_io_binding = provider in GPU_PROVIDERS or any(
            spec.datatype == "BF16" for spec in self.inputs + self.outputs
        )
        self.owner: Owner | None = None
        """None while the model is being loaded."""

    def _load(self) -> None:
        assert self._file is not None  # noqa: S101 - until `forget_file`
        options = ort.SessionOptions()
        options.intra_op_num_threads = self.threads
        # Spinning workers would take CPU time from the network threads.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.log_severity_level = 3
        # For a model loaded from bytes, ONNX Runtime looks for external data in the working directory by default. For
        # a self-contained model, the path of the model file is used as the folder, in which no file can exist.
        folder = self.path if self._file.self_contained else self.path.parent
        options.add_session_config_entry(EXTERNAL_DATA_FOLDER, str(folder))
        try:
            add_provider(options, self.provider, self._settings, self.threads)
        except Exception as error:  # ONNX Runtime's exceptions have no other common base class
            raise _not_started(self.path, self.provider, f": {str(error).rstrip('.')}") from error
        try:
            self._session = ort.InferenceSession(self._file.content, options)
        except Exception as error:  # ONNX Runtime's exceptions have no other common base class
            if self._file.self_contained and (refused := EXTERNAL_DATA_ERROR.search(str(error))):
                raise _external_data_refused(self.path, refused) from error
            kind = TransientLoadError if SYSTEM_ERROR.search(str(error)) else ModelLoadError
            raise kind(f"{self.path}: ONNX Runtime cannot load the model on {self.provider}: {error}") from error
        self._session.disable_fallback()
        if self._session.get_providers()[0] != ONNX_NAMES[self.provider]:
            raise _not_started(self.path, self.provider)

    def warm_up(self, rows: int, row: tuple[int, ...] | None = None) -> None:
        """Runs the model on zeros with this many rows, so that kernels are selected and memory is allocated.

        Args:
            rows: number of rows.
            row: shape of a row; by default that of the graph's inputs.
        """
        self.run({spec.name: _zeros(spec, rows, row) for spec in self.inputs}, [spec.name for spec in self.outputs])

    def forget_file(self) -> None:
        """Frees the file's bytes; called once the session will not be reloaded."""
        self._file = None

    def close(self) -> None:
        """Frees the ONNX Runtime session; no run may be in progress or follow."""
        del self._session

    @property
    def metadata(self) -> Mapping[str, str]:
        """The metadata_props of the ONNX model."""
        return dict(self._session.get_modelmeta().custom_metadata_map)

    @property
    def bounded(self) -> bool:
        """Whether runs are subject to the time limit; during loading, some providers compile for minutes."""
        return self.owner is not None or self.provider not in SHAPE_SPECIALIZING_PROVIDERS

    def run(self, inputs: Tensors, outputs: Sequence[str]) -> dict[str, NDArray[np.generic]]:
        """Runs the graph on one batch and returns the named outputs.

        Raises:
            DeadlineExceeded: the run was terminated because it exceeded the time limit.
        """
        options = ort.RunOptions()
        options.log_severity_level = 4  # for a failed run, ONNX Runtime would log the value that was out of range
        thread = threading.get_ident()
        RUNS[thread] = Run(self, options, time.monotonic())
        try:
            if self._uses_io_binding:
                return self._run_with_io_binding(inputs, outputs, options)
            return dict(zip(outputs, self._session.run(list(outputs), dict(inputs), options), strict=True))
        except Exception as error:
            if options.terminate:
                raise DeadlineExceeded(OVERDUE) from error
            raise
        finally:
            del RUNS[thread]

    def _run_with_io_binding(
        self, inputs: Tensors, outputs: Sequence[str], options: ort.RunOptions
    ) -> dict[str, NDArray[np.generic]]:
        """Runs with I/O binding, for GPUs and BF16: copies each input to the device and each output back once.

        Uses pageable memory: from Python, ONNX Runtime 1.31 allocates pinned memory only for plugin providers.
        """
        bfloat16 = {spec.name for spec in self.inputs if spec.datatype == "BF16"}
        binding = self._session.io_binding()
        for name, array in inputs.items():
            value = (
                ort.OrtValue.ortvalue_from_numpy_with_onnx_type(array, ONNX_BFLOAT16)
                if name in bfloat16
                else ort.OrtValue.ortvalue_from_numpy(array)
            )
            binding.bind_ortvalue_input(name, value)
        for name in outputs:
            binding.bind_output(name, "cpu")
        self._session.run_with_iobinding(binding, options)
        return {name: _to_numpy(value) for name, value in zip(outputs, binding.get_outputs(), strict=True)}


def _is_small(file: ModelFile, inputs: Sequence[TensorSpec]) -> bool:
    """Estimates from the file alone, and hence deterministically, whether a row takes few multiplications.

    A weight has at least one byte. A dense layer uses each weight once per row; a convolution uses it at most once per
    position of its input, and there are no more positions than values in an image or a sequence. For inputs with
    dynamic axes, there is no bound.
    """
    shapes = [spec.shape[1:] for spec in inputs]
    if any(-1 in shape for shape in shapes):
        return False
    places = max((math.prod(shape) for shape in shapes if len(shape) > 1), default=1)
    return file.weight_bytes * places < SINGLE_THREAD_MAX_COST


def _spec(path: Path, kind: str, tensor: ort.NodeArg) -> TensorSpec:
    if tensor.type not in ORT_TYPES:
        raise ModelLoadError(
            f"{path}: {kind} {tensor.name} has type {tensor.type}, which the Open Inference Protocol does not support"
        )
    first = tensor.shape[0] if tensor.shape else None
    return TensorSpec(
        name=tensor.name,
        datatype=ORT_TYPES[tensor.type],
        shape=tuple(size if isinstance(size, int) else -1 for size in tensor.shape),
        batch_symbol=first if isinstance(first, str) else None,
    )


def _not_started(path: Path, provider: Provider, reason: str = "") -> ProviderUnavailable:
    return ProviderUnavailable(
        f"{path}: ONNX Runtime could not initialize {ONNX_NAMES[provider]}{reason}. See its log above; "
        f"with --allow-fallback, the model is served on the CPU instead."
    )


def _external_data_refused(path: Path, refused: re.Match[str]) -> ModelLoadError:
    """Builds the error for refused external data, in terms of the real path instead of ONNX Runtime's fake folder."""
    location = (refused["path"] or "").removeprefix(f"{path}/")
    named = f" {path.parent / location}" if location else ""
    return ModelLoadError(
        f"{path}: External data path{named} is not read: a model that is listed in {CHECKSUMS_FILE} or must be "
        "signed must be a single self-contained file, since neither covers external data"
    )


def _zeros(spec: TensorSpec, rows: int, row: tuple[int, ...] | None) -> NDArray[np.generic]:
    shape = (rows if spec.shape[0] == -1 else spec.shape[0], *(row or spec.shape[1:])) if spec.shape else ()
    return np.full(shape, "", object) if spec.datatype == "BYTES" else np.zeros(shape, DATATYPES[spec.datatype].dtype)


def _to_numpy(value: ort.OrtValue) -> NDArray[np.generic]:
    if value.element_type() != ONNX_BFLOAT16:
        array: NDArray[np.generic] = value.numpy()
        return array
    bits = ctypes.string_at(value.data_ptr(), value.tensor_size_in_bytes())
    return np.frombuffer(bits, np.uint16).reshape(value.shape())
