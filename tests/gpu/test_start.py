"""A server with onnxruntime-gpu on a machine whose GPU is hidden, as after a driver failure."""

from pathlib import Path

import onnxruntime as ort
import pytest

from gpu.device import PROVIDERS, missing
from servers.server_process import refusal, running_server

pytestmark = pytest.mark.gpu


@pytest.fixture
def hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "-1")
    if "cpu" not in PROVIDERS and (reason := missing("cuda")):
        pytest.skip(reason)


@pytest.mark.usefixtures("hidden")
def test_without_a_gpu_the_server_refuses_to_start_with_advice() -> None:
    text = refusal("--provider", "cuda")
    assert "CUDAExecutionProvider" in text
    assert "--allow-fallback" in text


@pytest.mark.usefixtures("hidden")
@pytest.mark.parametrize("flags", [("--provider", "cuda", "--allow-fallback"), ("--provider", "auto")])
def test_without_a_gpu_the_server_falls_back_to_the_cpu_if_allowed(flags: tuple[str, ...], tmp_path: Path) -> None:
    log = tmp_path / "log"
    with running_server(*flags, log=log) as server:
        lines = [line for line in server.metrics().splitlines() if line.startswith("medserve_session_info{")]
    assert len(lines) == 4
    assert all('provider="cpu"' in line for line in lines)
    told = {True: "cuda is not used", False: "falling back to cpu" if "cuda" in flags else ""}
    assert told["CUDAExecutionProvider" in ort.get_available_providers()] in log.read_text()
