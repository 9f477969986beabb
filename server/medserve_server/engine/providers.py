"""ONNX Runtime execution providers: which are available on this machine, and their session options."""

import functools
import logging
from importlib.util import find_spec
from typing import Literal, get_args

import onnxruntime as ort

from medserve_server.config import Settings
from medserve_server.errors import ProviderUnavailable

log = logging.getLogger(__name__)

Provider = Literal["tensorrt", "cuda", "openvino", "cpu"]

# Fastest first; `auto` tries them in this order.
PROVIDERS: tuple[Provider, ...] = get_args(Provider)
ONNX_NAMES: dict[Provider, str] = {
    "tensorrt": "TensorrtExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "openvino": "OpenVINOExecutionProvider",
    "cpu": "CPUExecutionProvider",
}
GPU_PROVIDERS: frozenset[Provider] = frozenset({"tensorrt", "cuda"})
# Providers that compile or autotune for each new input shape: batches are padded to the sizes that were warmed up.
SHAPE_SPECIALIZING_PROVIDERS: frozenset[Provider] = GPU_PROVIDERS | {"openvino"}


def candidates(settings: Settings) -> tuple[Provider, ...]:
    """Returns the providers to try for a model, in order.

    Raises:
        ProviderUnavailable: the configured provider is unavailable on this machine and fallback is not allowed.
    """
    if settings.provider == "auto":
        return tuple(provider for provider in PROVIDERS if _missing(provider) is None)
    reason = _missing(settings.provider)
    if reason is not None and not settings.allow_fallback:
        raise ProviderUnavailable(
            f"--provider {settings.provider}: {reason}. With --allow-fallback, models are served on the CPU instead."
        )
    if reason is not None:
        log.warning("--provider %s: %s; falling back to cpu (--allow-fallback)", settings.provider, reason)
    first: tuple[Provider, ...] = (settings.provider,) if reason is None else ()
    return first if not settings.allow_fallback or first == ("cpu",) else (*first, "cpu")


def add_provider(options: ort.SessionOptions, provider: Provider, settings: Settings, threads: int) -> None:
    """Configures session options to run on a provider."""
    if provider == "openvino":
        options.add_provider_for_devices(_openvino_devices()[:1], {"num_of_threads": str(threads)})
    elif provider in GPU_PROVIDERS:
        ort.preload_dlls()  # CUDA libraries installed as Python packages
        options.add_provider(ONNX_NAMES[provider], _gpu_options(provider, settings))
        if provider == "tensorrt":  # for operators that TensorRT does not support, which would otherwise run on the CPU
            options.add_provider(ONNX_NAMES["cuda"], _gpu_options("cuda", settings))


def _missing(provider: Provider) -> str | None:
    """Returns why a provider is unavailable; None if it is available."""
    if provider == "openvino":
        if find_spec("onnxruntime_ep_openvino") is None:
            return "onnxruntime-ep-openvino is not installed (pip install onnxruntime-ep-openvino)"
        return None if _openvino_devices() else "its plugin supports only Intel processors, and none was found"
    if ONNX_NAMES[provider] not in ort.get_available_providers():
        return (
            f"the installed onnxruntime has no {ONNX_NAMES[provider]}; install the extra cuda: "
            "pip install '.[cuda]' in a checkout of medserve, or 'FILE.whl[cuda]' with its wheel"
        )
    return None


@functools.cache
def _openvino_devices() -> list[ort.OrtEpDevice]:
    """Registers the OpenVINO plugin and returns the CPUs that it supports."""
    import onnxruntime_ep_openvino  # noqa: PLC0415 - optional dependency

    ort.register_execution_provider_library("openvino", onnxruntime_ep_openvino.get_library_path())
    return [
        device
        for device in ort.get_ep_devices()
        if device.ep_name == ONNX_NAMES["openvino"] and device.device.type == ort.OrtHardwareDeviceType.CPU
    ]


def _gpu_options(provider: Provider, settings: Settings) -> dict[str, str]:
    options = {"device_id": str(settings.cuda_device)}
    if provider == "cuda":
        # An exhaustive search would stall the first request with each new batch size.
        options["cudnn_conv_algo_search"] = "HEURISTIC"
        options["arena_extend_strategy"] = "kSameAsRequested"
        # TF32 has a 10-bit mantissa; the probabilities were validated in full FP32.
        options["use_tf32"] = "0"
        if settings.cuda_memory_limit_mib is not None:
            options["gpu_mem_limit"] = str(settings.cuda_memory_limit_mib * 1024 * 1024)
    return options
