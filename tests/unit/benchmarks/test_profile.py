"""Combination of the samples of perf and py-spy into a CPU profile."""

import pytest
from benchmarks.profile import PARTS, REST, shares, step_of

REPORT = """# Overhead  Shared Object
    50.00%  onnxruntime_pybind11_state.cpython-311-x86_64-linux-gnu.so
    20.00%  libpython3.11.so.1.0
    10.00%  cygrpc.cpython-311-x86_64-linux-gnu.so
     8.00%  [kernel.kallsyms]
    10.00%  _message.abi3.so
     2.00%  libc.so.6
"""
LOOP = "thread (7): envoy;GrpcAdapter.__call__ (medserve_server/transport/grpc_adapter.py:50)"
READ = f"{LOOP};decode (medserve_server/services/codec.py:81)"
COUNT = (
    f"{LOOP};ModelMetrics.executed (medserve_server/telemetry/metrics.py:180)"
    ";Histogram.observe (prometheus_client/metrics.py:6)"
)


def test_the_innermost_known_frame_decides() -> None:
    assert step_of(LOOP) == REST
    assert step_of(READ) == "Python: reading"
    assert step_of(f"{READ};encode (medserve_server/services/codec.py:90)") == "Python: answers"
    assert step_of(COUNT) == "Python: metrics"
    assert step_of(f"{LOOP};Batcher._join (medserve_server/engine/batcher.py:9);join (somewhere/else.py:1)").endswith(
        "batch"
    )


def test_time_in_python_is_divided_like_the_stacks_without_loss() -> None:
    found = shares(REPORT, [f"{LOOP} 100", f"{READ} 150", f"{COUNT} 50"])
    assert set(found) == set(PARTS)
    assert found["ONNX Runtime"] == pytest.approx(0.5)
    assert found["gRPC"] == pytest.approx(0.1)
    assert found["Python: reading"] == pytest.approx(0.15)
    assert found[REST] == pytest.approx(0.1)
    assert sum(found.values()) == pytest.approx(1)


def test_too_few_stacks_give_no_result() -> None:
    with pytest.raises(RuntimeError, match="12 samples"):
        shares(REPORT, [f"{LOOP} 12"])
