"""An ONNX Runtime session: which provider it got, what its tensors are, and one call to run it."""

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
from medserve_server.engine.providers import GPU_PROVIDERS, ONNX_NAMES, PAYS_FOR_NEW_SHAPES, Provider, add_provider
from medserve_server.errors import DeadlineExceeded, ModelLoadError, ProviderUnavailable, TransientLoadError

# A model below this bound on its multiplications (times the bytes of a weight) is run on one thread: to share its work
# out costs more than it saves. The shipped model for pictures has 7e8, and takes about 0.9 ms a row on one thread.
SMALL_MODEL = 2e9

OVERDUE = "the model ran on this request for longer than the server allows"

EXTERNAL_DATA_FOLDER = "session.model_external_initializers_file_folder_path"
EXTERNAL_DATA_ERROR = re.compile(r'External data path[^"]*(?:"(?P<path>[^"]*)")?')
# Of ONNX Runtime: an errno while it reads external data, too little memory, no further thread.
SYSTEM_ERROR = re.compile(r"SystemError : \d+|Failed to allocate memory|bad_alloc|pthread_create failed")
ONNX_BFLOAT16 = 16  # onnx.TensorProto.BFLOAT16; the server does not need the onnx package for one number

# Tensors by name. BF16, which NumPy lacks, is held as its bits in uint16; BYTES as str objects.
Tensors = Mapping[str, NDArray[np.generic]]


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """What the graph says about one of its inputs or outputs."""

    name: str
    datatype: str
    """As the Open Inference Protocol names it."""
    shape: tuple[int, ...]
    """-1 where any size goes. Empty for a scalar, and where the graph does not say how many axes there are:
    ONNX Runtime reports both alike, and takes any shape for both."""
    batch_symbol: str | None
    """The name of the first axis where its size is free and it has one."""
    row_bytes: int | None = field(init=False)
    """Of a batch of numbers, whose other axes have fixed sizes; None for any other tensor."""

    def __post_init__(self) -> None:
        numbers = self.shape[:1] == (-1,) and -1 not in self.shape[1:] and self.datatype not in {"BYTES", "BOOL"}
        row_bytes = math.prod(self.shape[1:]) * DATATYPES[self.datatype].dtype.itemsize if numbers else None
        object.__setattr__(self, "row_bytes", row_bytes)


class Owner(Protocol):
    """What is told when runs of its session take too long."""

    def overdue(self) -> None:
        """A run was told to end."""

    def suspend(self, latest: float) -> None:
        """Runs that began before `latest`, on the clock of `time.monotonic`, do not end; told again and again."""

    def resume(self) -> None:
        """They ended after all."""


@dataclass(frozen=True, slots=True)
class Run:
    """A run that is under way."""

    session: "Session"
    options: ort.RunOptions
    began: float
    """On the clock of `time.monotonic`."""


RUNS: dict[int, Run] = {}
"""All runs of this process, by thread."""


class Session:
    """A loaded ONNX file. Calls to `run` may come from any thread."""

    def __init__(self, file: ModelFile, provider: Provider, settings: Settings) -> None:
        """Loads a file onto a provider; on the CPU a small model with one thread, others with one a processor.

        Raises:
            ModelLoadError: ONNX Runtime can't load it, or not onto this provider.
            ProviderUnavailable: ONNX Runtime can't start this provider here.
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
        # A GPU's results are asked for in ordinary memory; BF16 exists only as ONNX Runtime's own values.
        self._bound = provider in GPU_PROVIDERS or any(spec.datatype == "BF16" for spec in self.inputs + self.outputs)
        self.owner: Owner | None = None
        """None while it is being loaded."""

    def _load(self) -> None:
        assert self._file is not None  # noqa: S101 - until `forget_file`
        options = ort.SessionOptions()
        options.intra_op_num_threads = self.threads
        # A spinning worker takes the core that the network needs.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.log_severity_level = 3
        # From bytes, ONNX Runtime would look for external data in the working directory. Nothing lies below a file.
        folder = self.path if self._file.self_contained else self.path.parent
        options.add_session_config_entry(EXTERNAL_DATA_FOLDER, str(folder))
        try:
            add_provider(options, self.provider, self._settings, self.threads)
        except Exception as error:  # ONNX Runtime's own exceptions have no common base but this
            raise _not_started(self.path, self.provider, f": {str(error).rstrip('.')}") from error
        try:
            self._session = ort.InferenceSession(self._file.content, options)
        except Exception as error:  # ONNX Runtime's own exceptions have no common base but this
            if self._file.self_contained and (refused := EXTERNAL_DATA_ERROR.search(str(error))):
                raise _external_data_refused(self.path, refused) from error
            kind = TransientLoadError if SYSTEM_ERROR.search(str(error)) else ModelLoadError
            raise kind(f"{self.path}: ONNX Runtime can't load it on {self.provider}: {error}") from error
        self._session.disable_fallback()
        if self._session.get_providers()[0] != ONNX_NAMES[self.provider]:
            raise _not_started(self.path, self.provider)

    def warm_up(self, rows: int) -> None:
        """Runs zeros with that many rows, so that the first request finds kernels chosen and memory allocated."""
        self.run({spec.name: _zeros(spec, rows) for spec in self.inputs}, [spec.name for spec in self.outputs])

    def forget_file(self) -> None:
        """Frees the file's bytes; to be called when the session is as it will stay."""
        self._file = None

    def close(self) -> None:
        """Frees what ONNX Runtime holds; nothing may run any more."""
        del self._session

    @property
    def metadata(self) -> Mapping[str, str]:
        """The file's metadata_props."""
        return dict(self._session.get_modelmeta().custom_metadata_map)

    @property
    def bounded(self) -> bool:
        """Whether a run that takes long is one too many: some providers compile in the first ones, for minutes."""
        return self.owner is not None or self.provider not in PAYS_FOR_NEW_SHAPES

    def run(self, inputs: Tensors, outputs: Sequence[str]) -> dict[str, NDArray[np.generic]]:
        """Runs the graph on one batch and returns the named outputs.

        Raises:
            DeadlineExceeded: it took so long that it was told to end.
        """
        options = ort.RunOptions()
        options.log_severity_level = 4  # of a run that fails, ONNX Runtime would log what value was out of range
        thread = threading.get_ident()
        RUNS[thread] = Run(self, options, time.monotonic())
        try:
            if self._bound:
                return self._run_bound(inputs, outputs, options)
            return dict(zip(outputs, self._session.run(list(outputs), dict(inputs), options), strict=True))
        except Exception as error:
            if options.terminate:
                raise DeadlineExceeded(OVERDUE) from error
            raise
        finally:
            del RUNS[thread]

    def _run_bound(
        self, inputs: Tensors, outputs: Sequence[str], options: ort.RunOptions
    ) -> dict[str, NDArray[np.generic]]:
        """The way for GPUs and for BF16: each input copied to the device once, each output back once.

        Ordinary memory, not pinned: ONNX Runtime 1.31 allocates none that is from Python, but for plugged-in providers.
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
    """Whether a row takes few multiplications, by what is known without a run: the same at every start.

    A weight has at least a byte. A dense layer multiplies by each of its weights once a row; a convolution at most once
    for each place of its input, of which there are no more than numbers in a picture or a sequence. Where these have
    free sizes, nothing is known.
    """
    shapes = [spec.shape[1:] for spec in inputs]
    if any(-1 in shape for shape in shapes):
        return False
    places = max((math.prod(shape) for shape in shapes if len(shape) > 1), default=1)
    return file.weight_bytes * places < SMALL_MODEL


def _spec(path: Path, kind: str, tensor: ort.NodeArg) -> TensorSpec:
    if tensor.type not in ORT_TYPES:
        raise ModelLoadError(f"{path}: {kind} {tensor.name} is a {tensor.type}, which the protocol can't carry")
    first = tensor.shape[0] if tensor.shape else None
    return TensorSpec(
        name=tensor.name,
        datatype=ORT_TYPES[tensor.type],
        shape=tuple(size if isinstance(size, int) else -1 for size in tensor.shape),
        batch_symbol=first if isinstance(first, str) else None,
    )


def _not_started(path: Path, provider: Provider, reason: str = "") -> ProviderUnavailable:
    return ProviderUnavailable(
        f"{path}: ONNX Runtime could not start {ONNX_NAMES[provider]}{reason}. Its log above says why; "
        f"--allow-fallback would serve on the CPU."
    )


def _external_data_refused(path: Path, refused: re.Match[str]) -> ModelLoadError:
    """Says which file is not read, and why; ONNX Runtime was given a folder that does not exist, and names that."""
    location = (refused["path"] or "").removeprefix(f"{path}/")
    named = f" {path.parent / location}" if location else ""
    return ModelLoadError(
        f"{path}: External data path{named} is not read: a model that is listed in {CHECKSUMS_FILE} or has to be "
        "signed must be one self-contained file, since neither covers files beside it"
    )


def _zeros(spec: TensorSpec, rows: int) -> NDArray[np.generic]:
    shape = (rows if spec.shape[0] == -1 else spec.shape[0], *spec.shape[1:]) if spec.shape else ()
    return np.full(shape, "", object) if spec.datatype == "BYTES" else np.zeros(shape, DATATYPES[spec.datatype].dtype)


def _to_numpy(value: ort.OrtValue) -> NDArray[np.generic]:
    if value.element_type() != ONNX_BFLOAT16:
        array: NDArray[np.generic] = value.numpy()
        return array
    bits = ctypes.string_at(value.data_ptr(), value.tensor_size_in_bytes())
    return np.frombuffer(bits, np.uint16).reshape(value.shape())
