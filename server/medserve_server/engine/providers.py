"""Execution providers: which of them this machine has, and how to ask ONNX Runtime for one."""

import functools
import logging
from importlib.util import find_spec
from typing import Literal, get_args

import onnxruntime as ort

from medserve_server.config import Settings
from medserve_server.errors import ProviderUnavailable

log = logging.getLogger(__name__)

Provider = Literal["tensorrt", "cuda", "openvino", "cpu"]

# Fastest first: the order in which `auto` tries them.
PROVIDERS: tuple[Provider, ...] = get_args(Provider)
ONNX_NAMES: dict[Provider, str] = {
    "tensorrt": "TensorrtExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "openvino": "OpenVINOExecutionProvider",
    "cpu": "CPUExecutionProvider",
}
GPU_PROVIDERS: frozenset[Provider] = frozenset({"tensorrt", "cuda"})
# Those that compile or search for every new batch size: batches are filled up to sizes that were warmed up.
PAYS_FOR_NEW_SHAPES: frozenset[Provider] = GPU_PROVIDERS | {"openvino"}


def candidates(settings: Settings) -> tuple[Provider, ...]:
    """The providers to try for a model, in order.

    Raises:
        ProviderUnavailable: the one that was asked for is not on this machine, and no fallback is allowed.
    """
    if settings.provider == "auto":
        return tuple(provider for provider in PROVIDERS if _missing(provider) is None)
    reason = _missing(settings.provider)
    if reason is not None and not settings.allow_fallback:
        raise ProviderUnavailable(f"--provider {settings.provider}: {reason}. --allow-fallback would serve on the CPU.")
    if reason is not None:
        log.warning("--provider %s: %s; serving on cpu, as --allow-fallback permits", settings.provider, reason)
    first: tuple[Provider, ...] = (settings.provider,) if reason is None else ()
    return first if not settings.allow_fallback or first == ("cpu",) else (*first, "cpu")


def add_provider(options: ort.SessionOptions, provider: Provider, settings: Settings, threads: int) -> None:
    """Makes a session of these options run on a provider."""
    if provider == "openvino":
        options.add_provider_for_devices(_openvino_devices()[:1], {"num_of_threads": str(threads)})
    elif provider in GPU_PROVIDERS:
        ort.preload_dlls()  # the CUDA libraries that came as Python packages
        options.add_provider(ONNX_NAMES[provider], _gpu_options(provider, settings))
        if provider == "tensorrt":  # for what TensorRT leaves out, which would go to the CPU
            options.add_provider(ONNX_NAMES["cuda"], _gpu_options("cuda", settings))


def _missing(provider: Provider) -> str | None:
    """Why a provider can't be had; None where it can."""
    if provider == "openvino":
        if find_spec("onnxruntime_ep_openvino") is None:
            return "onnxruntime-ep-openvino is not installed (pip install onnxruntime-ep-openvino)"
        return None if _openvino_devices() else "its plugin takes processors of Intel alone, and finds none here"
    if ONNX_NAMES[provider] not in ort.get_available_providers():
        return (
            f"the installed onnxruntime has no {ONNX_NAMES[provider]}, which the extra cuda brings: "
            "pip install '.[cuda]' in a checkout of medserve, or 'FILE.whl[cuda]' with its wheel"
        )
    return None


@functools.cache
def _openvino_devices() -> list[ort.OrtEpDevice]:
    """The processors that OpenVINO's plugin drives; registers the plugin."""
    import onnxruntime_ep_openvino  # noqa: PLC0415 - not everybody has it

    ort.register_execution_provider_library("openvino", onnxruntime_ep_openvino.get_library_path())
    return [
        device
        for device in ort.get_ep_devices()
        if device.ep_name == ONNX_NAMES["openvino"] and device.device.type == ort.OrtHardwareDeviceType.CPU
    ]


def _gpu_options(provider: Provider, settings: Settings) -> dict[str, str]:
    options = {"device_id": str(settings.cuda_device)}
    if provider == "cuda":
        # An exhaustive search would stall the first request of every new batch size.
        options["cudnn_conv_algo_search"] = "HEURISTIC"
        options["arena_extend_strategy"] = "kSameAsRequested"
        # TF32 has a mantissa of 10 bits: not what the probabilities were checked with.
        options["use_tf32"] = "0"
        if settings.cuda_memory_limit_mib is not None:
            options["gpu_mem_limit"] = str(settings.cuda_memory_limit_mib * 1024 * 1024)
    return options
