"""The client and the server over a network with faults: an answer is right, or an error comes in time."""

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

PICTURES = np.random.default_rng(5).integers(0, 255, (20, 28, 28), np.uint8)
DEADLINE = 5.0
"""Seconds that a call over a broken network may take."""


@pytest.fixture
def net(server: ServerProcess) -> Iterator[Network]:
    with network(server.target) as made:
        yield made


@pytest.fixture(scope="session")
def right(server: ServerProcess) -> list[float]:
    with Client(server.target) as client:
        return [probability(client, picture) for picture in PICTURES]


def probability(client: Client, picture: np.ndarray[tuple[int, ...], np.dtype[np.uint8]]) -> float:
    (result,) = client.classify(picture, "chest-xray").results
    return next(label.probability for label in result.labels if label.label == "pneumonia")


def attempt(client: Client, right: list[float]) -> int:
    """Asks about every picture; gives how many answers came, each of them right."""
    answered = 0
    for picture, expected in zip(PICTURES, right, strict=True):
        try:
            found = probability(client, picture)
        except InferenceError:
            pass
        else:
            assert found == pytest.approx(expected, abs=1e-5)
            answered += 1
    return answered


def test_a_slow_network_only_takes_longer(net: Network, right: list[float]) -> None:
    net.delay = 0.02
    with Client(net.address) as client:
        assert attempt(client, right) == len(right)


def test_a_trickle_only_takes_longer(net: Network, right: list[float]) -> None:
    net.piece = 3
    with Client(net.address) as client:
        assert attempt(client, right) == len(right)


def test_cut_connections_are_made_again(net: Network, right: list[float]) -> None:
    over = threading.Event()
    pauses = (0.3 * 1.1**cut for cut in count())  # longer and longer, so that a slow machine gets an answer, too

    def cut_now_and_then() -> None:
        while not over.wait(next(pauses)):
            net.cut()

    cutter = threading.Thread(target=cut_now_and_then)
    cutter.start()
    with Client(net.address, timeout=DEADLINE) as client:
        found = [attempt(client, right) for _ in range(5)]
        while not any(found):
            found.append(attempt(client, right))
    over.set()
    cutter.join()
    with Client(net.address) as client:
        assert attempt(client, right) == len(right), "nothing is left of the faults"


def test_a_connection_that_swallows_everything_ends_at_the_deadline(
    net: Network, server: ServerProcess, right: list[float]
) -> None:
    with Client(net.address, timeout=DEADLINE) as client:
        probability(client, PICTURES[0])
        net.swallows = True
        with pytest.raises(InferenceError) as caught:
            probability(client, PICTURES[1])
        assert caught.value.code.name == "DEADLINE_EXCEEDED"
    with Client(server.target) as client:  # the server itself is as well as before
        assert attempt(client, right) == len(right)


def test_nothing_stays_in_flight(net: Network, server: ServerProcess) -> None:
    """Calls whose connection broke do not count as in flight forever."""
    with Client(net.address, timeout=DEADLINE) as client:
        probability(client, PICTURES[0])
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
        probability(client, PICTURES[1])
