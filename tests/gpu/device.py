"""What these tests need to know of the GPU: whether there is one, and how much of its memory is in use."""

import shutil
import subprocess
from pathlib import Path

import onnxruntime as ort

import onnx_models
from medserve_server.engine.providers import GPU_PROVIDERS, ONNX_NAMES, Provider
from waiting import PATIENCE


def query(*arguments: str) -> list[list[str]]:
    """The fields of each line that nvidia-smi answers."""
    ended = subprocess.run(
        ["nvidia-smi", *arguments, "--format=csv,noheader,nounits"],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=True,
    )
    return [[field.strip() for field in line.split(",")] for line in ended.stdout.splitlines() if line.strip()]


def missing(provider: Provider) -> str | None:
    """What this machine lacks for a provider; None where it lacks nothing."""
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
    """Whether ONNX Runtime alone can start a provider: that medserve can is for the tests to say."""
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
    """Memory of a process where the provider has its tensors: on the first GPU, or resident in the machine's own.

    In a container nvidia-smi may not see the process by this number: then it is the memory of all that use the GPU.
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
    """The first GPU, with its driver."""
    (fields,) = query("--id=0", "--query-gpu=name,driver_version")
    return f"{fields[0]}, driver {fields[1]}"
