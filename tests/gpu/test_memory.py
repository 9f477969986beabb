"""GPU memory: its limit, and its release when models are unloaded."""

import contextlib

import grpc
import numpy as np
import pytest

from gpu.answers import CLASSIFIERS, TOLERANCE, Expected, check, infer, input_of
from gpu.conftest import Serve
from gpu.device import memory_mib
from medserve_proto.inference import grpc_service_pb2 as pb
from medserve_proto.inference.grpc_service_pb2_grpc import GRPCInferenceServiceStub
from medserve_server.engine.providers import Provider
from servers.server_process import refusal
from waiting import PATIENCE, wait_until

pytestmark = pytest.mark.gpu

CYCLES = {"tensorrt": 5, "cpu": 5}  # of 50: TensorRT builds an engine each time, and a CPU only checks the test itself
FIRST = 5
MOST_GROWTH_MIB = 64  # less than the weights of one ResNet-50


def test_a_model_runs_within_the_memory_limit(provider: Provider, serve: Serve, expected: Expected) -> None:
    name = CLASSIFIERS[-1]
    server = serve((name,), "--cuda-memory-limit-mib", "4096")
    main, rows, right = expected.batch(name)
    with grpc.insecure_channel(server.target) as channel:
        found = infer(channel, name, input_of(name), rows[:8])
    check(found, right, main, slice(0, 8), TOLERANCE[provider])


def test_a_model_whose_weights_exceed_the_limit_is_rejected(provider: Provider, expected: Expected) -> None:
    """TensorRT's own memory is not subject to the limit."""
    if provider != "cuda":
        pytest.skip(f"--cuda-memory-limit-mib limits cuda, and not {provider}")
    flags = ("--model-control", "explicit", "--load-model", "resnet-50", "--cuda-memory-limit-mib", "32")
    text = refusal("--models", str(expected.models), "--provider", provider, *flags)
    assert "resnet-50" in text
    assert "memory" in text.lower()


def test_a_request_that_exceeds_the_limit_fails_alone(provider: Provider, serve: Serve) -> None:
    server = serve(("square",), "--cuda-memory-limit-mib", "64", "--max-batch-rows", "1")
    with grpc.insecure_channel(server.target) as channel:
        for length in (100, 10_000, 200):  # the second has an intermediate result of 400 MB
            fails = provider == "cuda" and length == 10_000
            x = np.linspace(0, 3, length, dtype=np.float32)[None]
            with pytest.raises(grpc.RpcError, match="failed") if fails else contextlib.nullcontext():
                np.testing.assert_allclose(infer(channel, "square", "x", x)["y"], np.array([9], np.float32), rtol=1e-6)


@pytest.mark.parametrize("name", [name for name in ("article-cnn", "resnet-50") if name in CLASSIFIERS])
def test_unloaded_models_release_their_memory(name: str, provider: Provider, serve: Serve, expected: Expected) -> None:
    server = serve(("free-size",), "--max-batch-rows", "1")
    main, rows, right = expected.batch(name)
    used = []
    with grpc.insecure_channel(server.target) as channel:
        stub = GRPCInferenceServiceStub(channel)
        for _ in range(CYCLES.get(provider, 50) + 1):
            stub.RepositoryModelLoad(pb.RepositoryModelLoadRequest(model_name=name), timeout=PATIENCE)
            check(infer(channel, name, input_of(name), rows[:1]), right, main, slice(0, 1), TOLERANCE[provider])
            stub.RepositoryModelUnload(pb.RepositoryModelUnloadRequest(model_name=name), timeout=PATIENCE)
            # Its metric series are removed when it is closed.
            wait_until(lambda: f'medserve_session_info{{model="{name}"' not in server.metrics(), f"{name} to be closed")
            used.append(memory_mib(provider, server.process.pid))
    first = used[min(FIRST, len(used) // 2)]
    assert used[-1] - first < MOST_GROWTH_MIB, f"MiB after each cycle: {used}"
