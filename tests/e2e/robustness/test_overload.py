"""Under overload, the server answers as many calls as it can and refuses the others immediately.

Model runs or image decoding are blocked while calls arrive, so that the tests do not depend on the speed of the
machine. `python -m benchmarks.overload` measures the throughput under a real flood.
"""

import asyncio
import io
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import grpc
import numpy as np
from PIL import Image

from medserve_client import AsyncClient, ClassificationResponse, OverloadedError
from medserve_proto.inference.grpc_service_pb2_grpc import GRPCInferenceServiceStub
from medserve_proto.v1 import image_classification_pb2 as classification
from medserve_proto.v1.image_classification_pb2_grpc import ImageClassificationStub
from samples import onnx_models
from servers import model_folder
from servers.held_server import HeldServer, held_server
from servers.server_process import running_server
from waiting import PATIENCE, wait_until

OK = grpc.StatusCode.OK
RESOURCE_EXHAUSTED = grpc.StatusCode.RESOURCE_EXHAUSTED
PENDING = 8
"""Value of --max-pending-requests in tests that set it."""
CROWD = 200
"""Number of concurrent calls: at 2 seconds each, far more than can be answered within PATIENCE."""


def codes(calls: Sequence[Any]) -> Counter[grpc.StatusCode]:
    return Counter(call.code() for call in calls)


def test_refused_calls_have_little_effect_on_others(transport: str, tmp_path: Path) -> None:
    onnx_models.save(tmp_path, "slow", onnx_models.slow())
    flags = ("--transport", transport, "--models", str(tmp_path), "--max-batch-rows", "1")
    with (
        held_server(tmp_path / "held", *flags, "--max-pending-requests", str(PENDING)) as held,
        grpc.insecure_channel(held.server.target) as channel,
    ):
        stub = GRPCInferenceServiceStub(channel)

        def ask() -> Any:  # noqa: ANN401 - grpc's types leave out what a call is
            return stub.ModelInfer.future(model_folder.request("slow", 0.0), timeout=PATIENCE)

        began = held.cpu_seconds()
        assert codes([ask() for _ in range(PENDING)]) == {OK: PENDING}
        cpu_per_response = (held.cpu_seconds() - began) / PENDING

        began = held.cpu_seconds()
        with held.hold():
            calls = [ask() for _ in range(100)]
            # Refused calls do not wait for the model, which is blocked.
            wait_until(lambda: sum(call.done() for call in calls) >= len(calls) - PENDING - 1, "refusals")
            refused = [call for call in calls if call.done()]
            assert codes(refused) == {RESOURCE_EXHAUSTED: len(refused)}
            cpu_per_refusal = (held.cpu_seconds() - began) / len(refused)
        found = codes(calls)
        assert found == {RESOURCE_EXHAUSTED: len(refused), OK: len(calls) - len(refused)}  # nothing hangs or is lost
        assert found[OK] >= PENDING  # the queue was full
        # At 5 times the load that it can serve, it still serves at least half of its capacity.
        assert 5 * cpu_per_refusal < cpu_per_response
        assert ask().code() is OK


def test_no_call_is_lost_at_the_stream_limit_of_a_connection(transport: str, tmp_path: Path) -> None:
    """Each response allows the next call, which may arrive before the server has cleaned up the previous one."""
    onnx_models.save(tmp_path, "add", onnx_models.add(1))
    plain = [("grpc.enable_retries", 0)]
    with (
        running_server("--models", str(tmp_path), "--transport", transport, "--max-connection-streams", "32") as server,
        grpc.insecure_channel(server.target, plain) as channel,
    ):
        stub = GRPCInferenceServiceStub(channel)
        calls = [stub.ModelInfer.future(model_folder.request("add", 0.0), timeout=PATIENCE) for _ in range(3000)]
        assert {call.code() for call in calls} == {OK}


def make_first_call_slow(held: HeldServer, ask: Callable[[], Any]) -> None:
    """Makes the first call take 2 seconds, so that the server expects the same of later calls."""
    with held.hold():
        first = ask()
        held.wait_for_calls(1)
        time.sleep(2.2)
    assert first.code() is OK


def assert_accepted_calls_meet_their_deadline(held: HeldServer, ask: Callable[[], Any]) -> None:
    """Checks this with concurrent calls that would take longer in total than their deadline."""
    make_first_call_slow(held, ask)
    with held.hold():
        calls = [ask() for _ in range(CROWD)]
        wait_until(lambda: sum(call.done() for call in calls) >= CROWD / 2, "refusals while requests are blocked")
        held.wait_for_all(calls)
        refused = [call for call in calls if call.done()]
        assert codes(refused) == {RESOURCE_EXHAUSTED: len(refused)}
        assert held.refused("deadline") == len(refused)
    # Every accepted call meets its deadline; with an unbounded queue, all would miss it.
    assert codes(calls) == {RESOURCE_EXHAUSTED: len(refused), OK: CROWD - len(refused)}
    assert CROWD - len(refused) > PATIENCE / 10  # enough calls are accepted


def test_calls_that_would_miss_their_deadline_do_not_delay_others(transport: str, tmp_path: Path) -> None:
    """A queue longer than the callers' deadlines would contain only expired calls."""
    onnx_models.save(tmp_path, "add", onnx_models.add(1))
    flags = ("--transport", transport, "--models", str(tmp_path), "--max-batch-rows", "1")
    with held_server(tmp_path / "held", *flags) as held, grpc.insecure_channel(held.server.target) as channel:
        stub = GRPCInferenceServiceStub(channel)
        request = model_folder.request("add", 0.0)
        assert_accepted_calls_meet_their_deadline(held, lambda: stub.ModelInfer.future(request, timeout=PATIENCE))


def encoded(size: int) -> bytes:
    """Returns noise in blocks as a PNG file; at 2048 x 2048 pixels, decoding takes far longer than the model run."""
    noise = np.random.default_rng(0).integers(0, 256, (size // 16, size // 16), np.uint8)
    file = io.BytesIO()
    Image.fromarray(noise.repeat(16, axis=0).repeat(16, axis=1)).save(file, "png")
    return file.getvalue()


def classify_request(size: int) -> classification.ClassifyRequest:
    return classification.ClassifyRequest(model_name="chest-xray", images=[classification.Image(encoded=encoded(size))])


def test_images_that_would_miss_their_deadline_do_not_delay_others(transport: str, tmp_path: Path) -> None:
    with (
        held_server(tmp_path / "held", "--transport", transport) as held,
        grpc.insecure_channel(held.server.target) as channel,
    ):
        stub = ImageClassificationStub(channel)
        request = classify_request(64)
        assert_accepted_calls_meet_their_deadline(held, lambda: stub.Classify.future(request, timeout=PATIENCE))


async def test_client_does_not_send_calls_that_would_be_refused(transport: str, tmp_path: Path) -> None:
    file = encoded(64)
    with held_server(tmp_path / "held", "--transport", transport) as held:
        with grpc.insecure_channel(held.server.target) as channel:
            stub = ImageClassificationStub(channel)
            make_first_call_slow(held, lambda: stub.Classify.future(classify_request(64), timeout=PATIENCE))
        async with AsyncClient(held.server.target, timeout=PATIENCE) as client:

            def ask() -> asyncio.Task[ClassificationResponse]:
                return asyncio.create_task(client.classify(file, "chest-xray"))

            with held.hold():
                first = [ask() for _ in range(CROWD)]
                await asyncio.to_thread(held.wait_for_all, first)
                refused = held.refused("deadline")
                assert refused >= CROWD / 2
                later = [ask() for _ in range(CROWD)]
                await asyncio.to_thread(held.wait_for_all, [*first, *later])
                # Most of the later calls are not sent to the server, which may accept a few.
                assert sum(call.done() for call in later) > CROWD * 0.9
                assert held.refused("deadline") - refused < CROWD / 10
                failed = sum(call.done() for call in [*first, *later])
            found = Counter(type(outcome) for outcome in await asyncio.gather(*first, *later, return_exceptions=True))
            assert found == {OverloadedError: failed, ClassificationResponse: 2 * CROWD - failed}
            assert (await ask()).results


def test_images_of_cancelled_calls_are_not_decoded(transport: str, tmp_path: Path) -> None:
    request = classify_request(2048)
    apart = [
        ("grpc.use_local_subchannel_pool", 1)
    ]  # after many cancellations, further calls on a connection may be refused
    with (
        held_server(tmp_path / "held", "--transport", transport) as held,
        grpc.insecure_channel(held.server.target) as channel,
        grpc.insecure_channel(held.server.target, apart) as second_channel,
    ):
        stub = ImageClassificationStub(channel)
        stub.Classify(request, timeout=PATIENCE)
        began = held.cpu_seconds()
        for _ in range(5):
            stub.Classify(request, timeout=PATIENCE)
        for_five = held.cpu_seconds() - began
        began = held.cpu_seconds()
        with held.hold():
            cancelling_stub = ImageClassificationStub(second_channel)
            calls = [cancelling_stub.Classify.future(request) for _ in range(100)]
            held.wait_for_calls(100)
            for call in calls:
                call.cancel()
        stub.Classify(request)  # without a deadline, since the estimated wait may be too long
        assert held.cpu_seconds() - began < 10 * for_five
