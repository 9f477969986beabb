"""Client and server over a faulty network: responses are correct, and errors are raised in time."""

import contextlib
import threading
import time
from collections.abc import Iterator
from itertools import count

import numpy as np
import pytest

from medserve_client import Client, InferenceError
from servers.faulty_network import Network, network
from servers.server_process import ServerProcess
from waiting import PATIENCE, wait_until

IMAGES = np.random.default_rng(5).integers(0, 255, (20, 28, 28), np.uint8)
DEADLINE = 5.0
"""Seconds that a call over a broken network may take."""


@pytest.fixture
def net(server: ServerProcess) -> Iterator[Network]:
    with network(server.target) as made:
        yield made


@pytest.fixture(scope="session")
def right(server: ServerProcess) -> list[float]:
    with Client(server.target) as client:
        return [probability(client, image) for image in IMAGES]


def probability(client: Client, image: np.ndarray[tuple[int, ...], np.dtype[np.uint8]]) -> float:
    (result,) = client.classify(image, "chest-xray").results
    return next(label.probability for label in result.labels if label.label == "pneumonia")


def attempt(client: Client, right: list[float]) -> int:
    """Classifies every image and checks the results; returns the number of responses."""
    responses = 0
    for image, expected in zip(IMAGES, right, strict=True):
        try:
            found = probability(client, image)
        except InferenceError:
            pass
        else:
            assert found == pytest.approx(expected, abs=1e-5)
            responses += 1
    return responses


def test_slow_network_only_delays_responses(net: Network, right: list[float]) -> None:
    net.delay = 0.02
    with Client(net.address) as client:
        assert attempt(client, right) == len(right)


def test_trickling_network_only_delays_responses(net: Network, right: list[float]) -> None:
    net.piece = 3
    with Client(net.address) as client:
        assert attempt(client, right) == len(right)


def test_reset_connections_are_reestablished(net: Network, right: list[float]) -> None:
    over = threading.Event()
    pauses = (0.3 * 1.1**cut for cut in count())  # increasing, so that a response arrives on a slow machine too

    def cut_now_and_then() -> None:
        while not over.wait(next(pauses)):
            net.cut()

    cutter = threading.Thread(target=cut_now_and_then)
    cutter.start()
    try:
        with Client(net.address, timeout=DEADLINE) as client:
            found = [attempt(client, right) for _ in range(5)]
            while not any(found):
                found.append(attempt(client, right))
    finally:
        over.set()
        cutter.join()
    with Client(net.address) as client:
        assert attempt(client, right) == len(right), "the network has recovered"


def test_black_holed_call_ends_at_its_deadline(net: Network, server: ServerProcess, right: list[float]) -> None:
    with Client(net.address, timeout=DEADLINE) as client:
        probability(client, IMAGES[0])
        net.swallows = True
        with pytest.raises(InferenceError) as caught:
            probability(client, IMAGES[1])
        assert caught.value.code.name == "DEADLINE_EXCEEDED"
    with Client(server.target) as client:  # the server is not affected
        assert attempt(client, right) == len(right)


def test_no_call_remains_in_flight(net: Network, server: ServerProcess) -> None:
    """Calls with a broken connection do not remain in flight."""
    with Client(net.address, timeout=DEADLINE) as client:
        probability(client, IMAGES[0])
        net.delay = 0.2
        thread = threading.Thread(target=_classify, args=(client,))
        thread.start()
        time.sleep(0.1)
        net.cut()
        thread.join(PATIENCE)
        assert not thread.is_alive()
    wait_until(lambda: server.sample('medserve_inflight_requests{model="chest-xray"') == 0)


def _classify(client: Client) -> None:
    with contextlib.suppress(InferenceError):
        probability(client, IMAGES[1])
