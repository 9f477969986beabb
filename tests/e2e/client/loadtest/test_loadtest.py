"""medserve loadtest with the real server, compared with the server's metrics."""

import io
import json
from pathlib import Path

import numpy as np
import pytest
from benchmarks import client_flood
from PIL import Image

from medserve_client import Client
from medserve_client.cli import main
from medserve_client.loadtest import LoadPlan, run
from medserve_client.loadtest.requests import patient_workload, synthetic_patients
from medserve_proto.v1.patient_risk_pb2 import PredictResponse
from servers.server_process import ServerProcess
from waiting import PATIENCE

SHORT = ("--duration", "0.5", "--warmup", "0.2")


@pytest.mark.parametrize("mode", ["unary", "stream"])
@pytest.mark.parametrize("model", ["chest-xray", "breast-cancer-risk"])
def test_generated_requests_are_valid_for_the_model(
    server: ServerProcess, tmp_path: Path, model: str, mode: str
) -> None:
    path = tmp_path / "run.json"
    arguments = ["--model", model, "--mode", mode, "--batch", "5", "--concurrency", "4", "--json", str(path)]
    metrics = ["--metrics-url", server.metrics_url]
    assert main(["--server", server.target, "loadtest", *SHORT, *arguments, *metrics]) == 0
    (run_,) = json.loads(path.read_text())["runs"]
    assert run_["errors"] == {}
    assert run_["sent"] > 0
    shares = run_["server"]
    assert shares["mean_batch"] >= 5
    assert shares["queue_ms"] >= 0
    assert 0 < shares["compute_ms"] < run_["latency_ms"]["max"] + 1000


def test_image_files(server: ServerProcess, tmp_path: Path) -> None:
    files = []
    for seed in range(3):
        files.append(tmp_path / f"{seed}.png")
        file = io.BytesIO()
        Image.fromarray(np.random.default_rng(seed).integers(0, 256, (40, 40), np.uint8)).save(file, "PNG")
        files[-1].write_bytes(file.getvalue())
    arguments = ["--images", *map(str, files), "--batch", "2", "--rate", "20", "--metrics-url", server.metrics_url]
    assert main(["--server", server.target, "loadtest", *SHORT, *arguments]) == 0


def test_generated_patients_resemble_the_training_data(server: ServerProcess) -> None:
    with Client(server.target) as client:
        model = client.describe("breast-cancer-risk")
        patients = synthetic_patients(model.manifest.patient_risk.features, batch=4, seed=1)
        results = client.predict_risk(patients, model.name).results
        assert not any(warning.feature for one in results for warning in one.warnings)
    workload = patient_workload(model, patients, 4)
    result = run(LoadPlan(server.target, workload.method, workload.payloads, concurrency=2, duration=0.2, warmup=0))
    assert not result.errors
    assert len(PredictResponse.FromString(result.sample).results) == 4


def test_benchmark_through_the_client_counts_every_call(server: ServerProcess) -> None:
    batches = [[np.zeros((28, 28), np.uint8)]]
    load = client_flood.ClientLoad(server.target, batches, None, 50, 1, warmup=0.2, timeout=PATIENCE, clients=2)
    result, _ = client_flood.run(load)
    assert not result.errors
    assert result.sent == len(result.latencies) > 20  # 50 on average
