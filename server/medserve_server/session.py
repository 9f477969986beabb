"""An ONNX Runtime session: which provider it got, what its tensors are, and one call to run it."""

import ctypes
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from medserve_server.config import Settings
from medserve_server.cpus import available_cpus
from medserve_server.errors import ModelLoadError, ProviderUnavailable

log = logging.getLogger(__name__)


TYPE_NAMES = {
    "tensor(bool)": "BOOL",
    "tensor(uint8)": "UINT8",
    "tensor(uint16)": "UINT16",
    "tensor(uint32)": "UINT32",
    "tensor(uint64)": "UINT64",
    "tensor(int8)": "INT8",
    "tensor(int16)": "INT16",
    "tensor(int32)": "INT32",
    "tensor(int64)": "INT64",
    "tensor(float16)": "FP16",
    "tensor(bfloat16)": "BF16",
    "tensor(float)": "FP32",
    "tensor(double)": "FP64",
    "tensor(string)": "BYTES",
}
"""The Open Inference Protocol's name of each ONNX Runtime type that both have."""

PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}
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
    """-1 where any size goes."""
    batch_symbol: str | None
    """The name of the first axis where its size is free."""


class Session:
    """A loaded ONNX file. Calls to `run` may come from any thread."""

    def __init__(self, path: Path, settings: Settings) -> None:
        self.provider, options = _choose_provider(settings)
        self.threads = settings.threads or available_cpus()
        session_options = ort.SessionOptions()
        session_options.intra_op_num_threads = self.threads
        # A spinning worker takes the core that the event loop needs.
        session_options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        session_options.log_severity_level = 3
        try:
            self._session = ort.InferenceSession(path, session_options, providers=[(PROVIDERS[self.provider], options)])
        except Exception as error:  # ONNX Runtime's own exceptions have no common base but this
            raise ModelLoadError(f"{path}: ONNX Runtime can't load it: {error}") from error
        self._session.disable_fallback()
        if self._session.get_providers()[0] != PROVIDERS[self.provider]:
            self._accept_fallback(path, settings)
        self.precision = "fp32"
        self.inputs = tuple(_spec(path, "input", tensor) for tensor in self._session.get_inputs())
        self.outputs = tuple(_spec(path, "output", tensor) for tensor in self._session.get_outputs())
        self._needs_ort_values = any(spec.datatype == "BF16" for spec in self.inputs + self.outputs)

    @property
    def metadata(self) -> Mapping[str, str]:
        """The file's metadata_props."""
        return dict(self._session.get_modelmeta().custom_metadata_map)

    def run(self, inputs: Tensors, outputs: Sequence[str]) -> dict[str, NDArray[np.generic]]:
        """Runs the graph on one batch and returns the named outputs."""
        if self._needs_ort_values:
            return self._run_ort_values(inputs, outputs)
        return dict(zip(outputs, self._session.run(list(outputs), dict(inputs)), strict=True))

    def _run_ort_values(self, inputs: Tensors, outputs: Sequence[str]) -> dict[str, NDArray[np.generic]]:
        """The way for BF16, which ONNX Runtime takes and gives only as its own values."""
        bfloat16 = {spec.name for spec in self.inputs if spec.datatype == "BF16"}
        values = {
            name: ort.OrtValue.ortvalue_from_numpy_with_onnx_type(array, ONNX_BFLOAT16)
            if name in bfloat16
            else ort.OrtValue.ortvalue_from_numpy(array)
            for name, array in inputs.items()
        }
        results = self._session.run_with_ort_values(list(outputs), values)
        return {name: _to_numpy(value) for name, value in zip(outputs, results, strict=True)}

    def _accept_fallback(self, path: Path, settings: Settings) -> None:
        message = f"{path}: ONNX Runtime could not start the provider {self.provider} and would run on cpu"
        if not settings.allow_fallback:
            raise ProviderUnavailable(f"{message}; its log above says why. --allow-fallback accepts that.")
        log.warning("%s, as --allow-fallback permits", message)
        self.provider = "cpu"


def _choose_provider(settings: Settings) -> tuple[str, dict[str, str]]:
    """The provider to ask for and its options.

    Raises:
        ProviderUnavailable: the installed onnxruntime lacks it, and no fallback is allowed.
    """
    if settings.provider == "cpu":
        return "cpu", {}
    if PROVIDERS[settings.provider] not in ort.get_available_providers():
        message = f"--provider {settings.provider}: the installed onnxruntime has no {PROVIDERS[settings.provider]}"
        if not settings.allow_fallback:
            raise ProviderUnavailable(
                f'{message}. Install "medserve[cuda]" on a machine with an NVIDIA GPU, or serve on the CPU: '
                "--provider cpu, or --allow-fallback."
            )
        log.warning("%s; serving on cpu, as --allow-fallback permits", message)
        return "cpu", {}
    ort.preload_dlls()  # the CUDA libraries that came as Python packages
    options = {
        "device_id": str(settings.cuda_device),
        # An exhaustive search would stall the first request of every new batch size.
        "cudnn_conv_algo_search": "HEURISTIC",
        "arena_extend_strategy": "kSameAsRequested",
        # TF32 has a mantissa of 10 bits: not what the probabilities were checked with.
        "use_tf32": "0",
    }
    if settings.cuda_memory_limit_mib is not None:
        options["gpu_mem_limit"] = str(settings.cuda_memory_limit_mib * 1024 * 1024)
    return "cuda", options


def _spec(path: Path, kind: str, tensor: ort.NodeArg) -> TensorSpec:
    if tensor.type not in TYPE_NAMES:
        raise ModelLoadError(f"{path}: {kind} {tensor.name} is a {tensor.type}, which the protocol can't carry")
    free = bool(tensor.shape) and not isinstance(tensor.shape[0], int)
    return TensorSpec(
        name=tensor.name,
        datatype=TYPE_NAMES[tensor.type],
        shape=tuple(size if isinstance(size, int) else -1 for size in tensor.shape),
        batch_symbol=str(tensor.shape[0]) if free else None,
    )


def _to_numpy(value: ort.OrtValue) -> NDArray[np.generic]:
    if value.element_type() != ONNX_BFLOAT16:
        array: NDArray[np.generic] = value.numpy()
        return array
    bits = ctypes.string_at(value.data_ptr(), value.tensor_size_in_bytes())
    return np.frombuffer(bits, np.uint16).reshape(value.shape())
