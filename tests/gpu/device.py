"""Queries the GPU: whether one is available, and its memory in use."""

import os
import shutil
import subprocess
from pathlib import Path

import onnxruntime as ort

from medserve_server.engine.providers import GPU_PROVIDERS, ONNX_NAMES, Provider
from samples import onnx_models
from waiting import PATIENCE

PROVIDERS = os.environ.get("MEDSERVE_GPU_TEST_PROVIDERS", "cuda tensorrt").split()


def query(*arguments: str) -> list[list[str]]:
    """Returns the fields of each line of nvidia-smi's output."""
    ended = subprocess.run(
        ["nvidia-smi", *arguments, "--format=csv,noheader,nounits"],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=True,
    )
    return [[field.strip() for field in line.split(",")] for line in ended.stdout.splitlines() if line.strip()]


def missing(provider: Provider) -> str | None:
    """Returns what this machine lacks for a provider, or None."""
    if provider not in GPU_PROVIDERS:
        return None
    if shutil.which("nvidia-smi") is None:
        return "needs an NVIDIA GPU and its driver; there is no nvidia-smi"
    command = ["nvidia-smi", "--list-gpus"]
    listed = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)
    if listed.returncode != 0 or "GPU " not in listed.stdout:
        said = (listed.stdout + listed.stderr).strip().splitlines()
        return f"needs an NVIDIA GPU; nvidia-smi --list-gpus says: {said[0] if said else 'nothing'}"
    if provider == "tensorrt" and not _starts("tensorrt"):
        return "needs NVIDIA's TensorRT libraries (libnvinfer), which no package of the extra cuda brings"
    return None


def _starts(provider: Provider) -> bool:
    """Returns whether ONNX Runtime alone can start a provider; the tests verify that medserve can."""
    if ONNX_NAMES[provider] not in ort.get_available_providers():
        return False
    ort.preload_dlls()
    options = ort.SessionOptions()
    options.log_severity_level = 4
    model = onnx_models.identity("FP32", ["batch", 2]).SerializeToString()
    try:
        session = ort.InferenceSession(model, options, providers=[ONNX_NAMES[provider], "CPUExecutionProvider"])
    except Exception:  # noqa: BLE001 - ONNX Runtime's own exceptions have no common base but this
        return False
    return bool(session.get_providers()[0] == ONNX_NAMES[provider])


def memory_mib(provider: Provider, pid: int) -> float:
    """Returns the memory of a process in the provider's memory: on the first GPU, or resident in main memory.

    In a container, nvidia-smi may not list the process by this PID: then it is the memory of all processes on the GPU.
    """
    if provider not in GPU_PROVIDERS:
        status = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
        return int(status["VmRSS"].split()[0]) / 1024
    applications = query("--id=0", "--query-compute-apps=pid,used_memory")
    for found, used in applications:
        if found == str(pid) and used.isdigit():
            return float(used)
    ((total,),) = query("--id=0", "--query-gpu=memory.used")
    return float(total)


def name() -> str:
    """Returns the name and driver of the first GPU."""
    (fields,) = query("--id=0", "--query-gpu=name,driver_version")
    return f"{fields[0]}, driver {fields[1]}"
