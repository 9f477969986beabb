"""More calls than the server can answer: it goes on answering as many as it can, and refuses the others at once.

The model or the reading of pictures is held while calls come in, so that no machine is too fast or too slow to be
overloaded. `python -m benchmarks.overload` measures the throughput under a real flood.
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
import pytest
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
"""Requests that may wait for a model where the flag says so."""
CROWD = 200
"""Calls at once: at 2 seconds each, many more than can be answered within PATIENCE."""


def codes(calls: Sequence[Any]) -> Counter[grpc.StatusCode]:
    return Counter(call.code() for call in calls)


@pytest.mark.parametrize("times", [3, 5])
def test_what_comes_beyond_the_limit_costs_the_rest_little(transport: str, tmp_path: Path, times: int) -> None:
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
        of_an_answer = (held.cpu_seconds() - began) / PENDING

        began = held.cpu_seconds()
        with held.hold():
            calls = [ask() for _ in range(times * 20)]
            # None of those that are refused waits for the model: it does not move.
            wait_until(lambda: sum(call.done() for call in calls) >= len(calls) - PENDING - 1, "refusals")
            refused = [call for call in calls if call.done()]
            assert codes(refused) == {RESOURCE_EXHAUSTED: len(refused)}
            of_a_refusal = (held.cpu_seconds() - began) / len(refused)
        found = codes(calls)
        assert found == {RESOURCE_EXHAUSTED: len(refused), OK: len(calls) - len(refused)}  # nothing hangs or is lost
        assert found[OK] >= PENDING  # the queue was full
        # Of as many calls as it can answer in a second, and as many times that, it still answers half of the former.
        assert times * of_a_refusal < of_an_answer
        assert ask().code() is OK


def test_a_client_that_fills_its_connection_loses_no_call(transport: str, tmp_path: Path) -> None:
    """Each answer lets the next of its calls go out, before the server has cleared away the one that ended."""
    onnx_models.save(tmp_path, "add", onnx_models.add(1))
    plain = [("grpc.enable_retries", 0)]
    with (
        running_server("--models", str(tmp_path), "--transport", transport, "--max-connection-streams", "32") as server,
        grpc.insecure_channel(server.target, plain) as channel,
    ):
        stub = GRPCInferenceServiceStub(channel)
        calls = [stub.ModelInfer.future(model_folder.request("add", 0.0), timeout=PATIENCE) for _ in range(3000)]
        assert {call.code() for call in calls} == {OK}


def learn_that_a_call_takes_seconds(held: HeldServer, ask: Callable[[], Any]) -> None:
    """Lets the server's first call take 2 seconds; it expects that of the later ones."""
    with held.hold():
        first = ask()
        held.wait_for_calls(1)
        time.sleep(2.2)
    assert first.code() is OK


def only_what_can_be_answered_in_time_is_accepted(held: HeldServer, ask: Callable[[], Any]) -> None:
    """Asserts it of a crowd whose calls, one after the other, would take longer than any of their callers waits."""
    learn_that_a_call_takes_seconds(held, ask)
    with held.hold():
        calls = [ask() for _ in range(CROWD)]
        wait_until(lambda: sum(call.done() for call in calls) >= CROWD / 2, "refusals while nothing moves")
        held.wait_for_all(calls)
        refused = [call for call in calls if call.done()]
        assert codes(refused) == {RESOURCE_EXHAUSTED: len(refused)}
        assert held.refused("deadline") == len(refused)
    # Nothing that was accepted is late; an endless queue would have made all of them late.
    assert codes(calls) == {RESOURCE_EXHAUSTED: len(refused), OK: CROWD - len(refused)}
    assert CROWD - len(refused) > PATIENCE / 10  # and those are many


def test_calls_that_would_come_too_late_do_not_make_all_others_late(transport: str, tmp_path: Path) -> None:
    """A queue that takes longer than the callers' deadlines would hold only calls that have been given up."""
    onnx_models.save(tmp_path, "add", onnx_models.add(1))
    flags = ("--transport", transport, "--models", str(tmp_path), "--max-batch-rows", "1")
    with held_server(tmp_path / "held", *flags) as held, grpc.insecure_channel(held.server.target) as channel:
        stub = GRPCInferenceServiceStub(channel)
        request = model_folder.request("add", 0.0)
        only_what_can_be_answered_in_time_is_accepted(held, lambda: stub.ModelInfer.future(request, timeout=PATIENCE))


def encoded(size: int) -> bytes:
    """Blocks of noise as a PNG file; one of 2048 pixels a side takes many times as long to read as the network."""
    noise = np.random.default_rng(0).integers(0, 256, (size // 16, size // 16), np.uint8)
    file = io.BytesIO()
    Image.fromarray(noise.repeat(16, axis=0).repeat(16, axis=1)).save(file, "png")
    return file.getvalue()


def picture(size: int) -> classification.ClassifyRequest:
    return classification.ClassifyRequest(model_name="chest-xray", images=[classification.Image(encoded=encoded(size))])


def test_pictures_that_would_be_read_too_late_do_not_make_all_others_late(transport: str, tmp_path: Path) -> None:
    with (
        held_server(tmp_path / "held", "--transport", transport) as held,
        grpc.insecure_channel(held.server.target) as channel,
    ):
        stub = ImageClassificationStub(channel)
        request = picture(64)
        only_what_can_be_answered_in_time_is_accepted(held, lambda: stub.Classify.future(request, timeout=PATIENCE))


async def test_the_client_holds_back_what_the_server_would_refuse(transport: str, tmp_path: Path) -> None:
    file = encoded(64)
    with held_server(tmp_path / "held", "--transport", transport) as held:
        with grpc.insecure_channel(held.server.target) as channel:
            stub = ImageClassificationStub(channel)
            learn_that_a_call_takes_seconds(held, lambda: stub.Classify.future(picture(64), timeout=PATIENCE))
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
                # By far the most of the later ones have not even reached the server, which may have room for a few.
                assert sum(call.done() for call in later) > CROWD * 0.9
                assert held.refused("deadline") - refused < CROWD / 10
                failed = sum(call.done() for call in [*first, *later])
            found = Counter(type(outcome) for outcome in await asyncio.gather(*first, *later, return_exceptions=True))
            assert found == {OverloadedError: failed, ClassificationResponse: 2 * CROWD - failed}
            assert (await ask()).results


def test_pictures_of_expired_calls_are_not_read(transport: str, tmp_path: Path) -> None:
    request = picture(2048)
    apart = [("grpc.use_local_subchannel_pool", 1)]  # a connection that cancels many may be refused its next call
    with (
        held_server(tmp_path / "held", "--transport", transport) as held,
        grpc.insecure_channel(held.server.target) as channel,
        grpc.insecure_channel(held.server.target, apart) as leaving,
    ):
        stub = ImageClassificationStub(channel)
        stub.Classify(request, timeout=PATIENCE)
        began = held.cpu_seconds()
        for _ in range(5):
            stub.Classify(request, timeout=PATIENCE)
        for_five = held.cpu_seconds() - began
        began = held.cpu_seconds()
        with held.hold():
            leaver = ImageClassificationStub(leaving)
            calls = [leaver.Classify.future(request) for _ in range(100)]
            held.wait_for_calls(100)
            for call in calls:
                call.cancel()
        stub.Classify(request)  # waits behind all that is still to be read, and would be refused with a deadline
        assert held.cpu_seconds() - began < 10 * for_five
