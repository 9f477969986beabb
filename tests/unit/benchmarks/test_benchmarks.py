"""The parts of the benchmarks whose errors would silently affect the results."""

import json
import os
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from benchmarks import requests
from benchmarks.ceiling import Cost
from benchmarks.measure import Meter, Outcome, Shape
from benchmarks.plots import plot
from benchmarks.processes import cpu_seconds, marked_processes, running
from benchmarks.report import report
from benchmarks.results import Results
from benchmarks.servers import PEER_SERVERS, PEERS

from medserve_client.loadtest import Progress
from medserve_proto.inference import grpc_service_pb2 as oip
from waiting import PATIENCE, wait_until

BUSY_CHILD = """
import subprocess, sys, time
code = "import time\\nend = time.process_time() + 0.3\\nwhile time.process_time() < end: pass"
subprocess.run([sys.executable, "-c", code], start_new_session=True)
time.sleep(600)
"""


def outcome(images_per_second: float, server_cpu: float) -> Outcome:
    return Outcome(images_per_second, 1.0, 2.0, server_cpu, 20.0, 80.0, 0.5)


@pytest.fixture
def results() -> Results:
    found = Results("command", "2026-01-01", {"CPU": "one"}, rounds=3, seconds=1.0)
    found.ceiling = [[Cost(1, 1, 100.0, 100.0), Cost(1, 2, 90.0, 120.0), Cost(32, 1, 50.0, 50.0)]] * 3
    for name, speed in (("medserve envoy", 4000.0), ("triton", 1500.0), ("triton, 2 instances", 2500.0)):
        for shape in (Shape(1, 1), Shape(1, 16), Shape(1, 64), Shape(32, 4)):
            found.outcomes.setdefault(name, {})[shape.label] = [
                outcome(speed * factor, 5e5 / speed) for factor in (0.9, 1.0, 1.3)
            ]
    found.reasons["ray"] = ["can't be\ninstalled"]
    return found


def test_results_can_be_written_and_read(results: Results, tmp_path: Path) -> None:
    results.save(tmp_path / "results.json")
    assert Results.load(tmp_path / "results.json") == results


def test_the_report_compares_with_the_better_configuration_of_a_peer(results: Results) -> None:
    page = report(results)
    assert "| CPU time over Triton's, unary, 16 in flight | ≤ 1 | 0.62 | reached |" in page
    assert (
        "| throughput over that of triton, 2 instances, 4 in flight, 32 images each | ≥ 0.9 | 1.60 | reached |" in page
    )
    assert "| CPU time over ONNX Runtime's alone, unary, 64 in flight | ≤ 2.2 | 1.25 | reached |" in page
    assert "| throughput over Triton's, stream, 16 in flight | ≥ 1.4 | not measured | |" in page
    assert "2,500 (2,250–3,250)" in page  # noqa: RUF001 - a range
    assert "In none of these loads and figures." in page
    assert "can't be installed" in page


def test_the_report_states_where_a_peer_is_better(results: Results) -> None:
    results.outcomes["triton"][Shape(1, 16).label] = [outcome(9000.0, 300.0)] * 3
    assert "- triton has more images per second with unary, 16 in flight: 9,000 against 4,000." in report(results)


def test_the_plots_are_drawn(results: Results, tmp_path: Path) -> None:
    plot(results, tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"serving_cpu.png", "serving_throughput.png"}


def test_every_peer_has_its_requirements_pinned() -> None:
    for peer in PEER_SERVERS:
        lines = (PEERS / peer.peer / "requirements.txt").read_text().splitlines()
        assert all("==" in line for line in lines)
        assert any(line.startswith(f"{peer.package}==") for line in lines)


def test_responses_are_decoded_in_every_encoding() -> None:
    expected = np.array([[0.25, 0.75], [0.5, 0.5]], np.float32)
    raw = oip.ModelInferResponse(raw_output_contents=[expected.tobytes()])
    typed = oip.ModelInferResponse()
    typed.outputs.add(name="probabilities").contents.fp32_contents.extend(expected.ravel())
    streamed = oip.ModelStreamInferResponse(infer_response=raw).SerializeToString()
    assert requests.stream_status(streamed) == "OK"
    assert requests.stream_status(oip.ModelStreamInferResponse(error_message="no").SerializeToString()) == "ERROR"
    for found in (
        requests.decode(raw.SerializeToString(), "grpc"),
        requests.decode(typed.SerializeToString(), "grpc"),
        requests.decode(streamed, "grpc", stream=True),
        requests.decode(expected.tobytes(), "octets"),
        requests.decode(json.dumps(expected.tolist()).encode(), "base64"),
    ):
        np.testing.assert_array_equal(found, expected)


@pytest.mark.process
def test_cpu_time_includes_exited_processes_of_other_sessions(tmp_path: Path) -> None:
    started_at = time.monotonic()
    command = [sys.executable, "-c", BUSY_CHILD]
    with running(command, {}, tmp_path / "log", lambda: time.monotonic() > started_at + 0.2, PATIENCE) as started:
        # Between the child's exit and the parent's wait, its CPU time is not attributed to any process.
        wait_until(lambda: len(marked_processes(started.mark)) == 1 and cpu_seconds(started.mark) >= 0.3)
        assert os.getpid() not in marked_processes(started.mark)
    assert not marked_processes(started.mark)


@pytest.mark.process
def test_a_server_that_exits_is_reported_with_its_log(tmp_path: Path) -> None:
    command = [sys.executable, "-c", "raise SystemExit('no such model')"]
    with (
        pytest.raises(RuntimeError, match=r"ended with 1.*no such model"),
        running(command, {}, tmp_path / "log", lambda: False, PATIENCE),
    ):
        pass


def test_the_meter_reads_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    readings = iter([10.0, 13.0])
    monkeypatch.setattr("benchmarks.measure.cpu_seconds", lambda _mark: next(readings))
    meter = Meter("mark", begin=1.0, end=2.0)
    for elapsed, succeeded in ((0.9, 90), (1.0, 100), (1.1, 110), (2.05, 400), (2.1, 500)):
        meter(Progress(elapsed, succeeded, 0))
    assert meter.per_request() == pytest.approx(0.01)
