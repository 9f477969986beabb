"""The GPU tests, on a machine that may have none: they run on the CPU and report missing requirements."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from gpu.device import memory_mib, missing, query
from servers.server_process import REPOSITORY
from waiting import PATIENCE

pytestmark = pytest.mark.process


def gpu_tests(*flags: str, path: str = os.environ["PATH"], providers: str = "cuda tensorrt") -> str:
    """Returns pytest's output for the GPU tests, which must not fail."""
    ended = subprocess.run(
        [sys.executable, "-m", "pytest", "tests/gpu", "-m", "gpu", "-p", "no:cacheprovider", *flags],
        cwd=REPOSITORY,
        env={**os.environ, "MEDSERVE_GPU_TEST_PROVIDERS": providers, "PATH": path},
        capture_output=True,
        text=True,
        timeout=2 * PATIENCE,
        check=False,
    )
    assert ended.returncode == 0, ended.stdout
    return ended.stdout


def nvidia_smi(folder: Path, script: str) -> str:
    """Returns a PATH whose nvidia-smi is this shell script."""
    program = folder / "nvidia-smi"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    return f"{folder}:{os.environ['PATH']}"


def test_without_a_gpu_every_test_is_skipped_with_the_reason(tmp_path: Path) -> None:
    output = gpu_tests(path=nvidia_smi(tmp_path, "echo 'No devices were found'; exit 6"))
    assert "needs an NVIDIA GPU; nvidia-smi --list-gpus says: No devices were found" in output
    assert " passed" not in output
    assert " skipped" in output.splitlines()[-1]


def test_without_a_gpu_make_prints_a_message_and_installs_nothing(tmp_path: Path) -> None:
    ended = subprocess.run(
        ["make", "test-gpu", "PYTHON=false"],
        cwd=REPOSITORY,
        env={**os.environ, "PATH": nvidia_smi(tmp_path, "echo 'No devices were found'")},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=True,
    )
    assert "test-gpu: skipped, since it needs an NVIDIA GPU" in ended.stdout


def test_gpu_tests_pass_on_the_cpu() -> None:
    """Without the measurements, to save time."""
    output = gpu_tests("-k", "not throughput", providers="cpu")
    assert " 1 skipped" in output.splitlines()[-1], "CUDA's memory limit"


@pytest.mark.parametrize(
    ("applications", "expected"),
    [("11, 300\n4711, 612", 612.0), ("11, 300", 1500.0), ("4711, [N/A]", 1500.0), ("", 1500.0)],
)
def test_memory_is_measured_per_process_or_per_device(
    applications: str, expected: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = f'case "$*" in *compute-apps*) echo "{applications}";; *) echo 1500;; esac'
    monkeypatch.setenv("PATH", nvidia_smi(tmp_path, script))
    assert memory_mib("cuda", 4711) == expected


def test_cpu_memory_is_the_resident_set_size() -> None:
    assert 10 < memory_mib("cpu", os.getpid()) < 100_000


def test_gpu_is_found_if_nvidia_smi_lists_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", nvidia_smi(tmp_path, "echo 'GPU 0: NVIDIA T4 (UUID: GPU-1)'"))
    assert missing("cuda") is None
    assert query("--query-gpu=name") == [["GPU 0: NVIDIA T4 (UUID: GPU-1)"]]
    assert "TensorRT libraries" in (missing("tensorrt") or "")


def test_cpu_has_no_missing_requirements() -> None:
    assert missing("cpu") is None
