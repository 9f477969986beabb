"""The image decoding threads: queueing and admission control."""

import threading
from collections.abc import Iterator
from concurrent.futures import Future

import pytest

from clock import Clock
from medserve_server.errors import Overloaded
from medserve_server.inputs.decoders import Decoders
from waiting import PATIENCE

USUAL = 0.05


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr("medserve_server.inputs.decoders.time", clock)
    return clock


@pytest.fixture
def decoders(clock: Clock) -> Iterator[Decoders]:
    """Two threads that have measured 50 ms per image."""
    with Decoders(2) as started:
        started.submit(clock.sleep, USUAL).result()
        yield started


def occupy(decoders: Decoders, count: int) -> tuple[threading.Event, list[Future[bool]]]:
    """Submits work that lasts until the event is set."""
    opened = threading.Event()
    return opened, [decoders.submit(opened.wait, PATIENCE) for _ in range(count)]


def test_an_image_that_would_miss_its_deadline_is_rejected(decoders: Decoders, clock: Clock) -> None:
    opened, _ = occupy(decoders, 20)
    decoders.check(None)
    decoders.check(clock.now + 100)
    with pytest.raises(
        Overloaded, match=r"the decoding queue takes about .* s, and the deadline leaves 0\.5 s"
    ) as told:
        decoders.check(clock.now + 0.5)  # about the time of 20 images on two threads
    assert told.value.limit == "deadline"
    opened.set()


def test_an_idle_thread_means_no_wait(decoders: Decoders, clock: Clock) -> None:
    opened, _ = occupy(decoders, 1)
    decoders.check(clock.now + USUAL / 100)
    opened.set()


def test_nothing_is_rejected_before_the_decoding_time_is_known(clock: Clock) -> None:
    with Decoders(1) as decoders:
        opened, _ = occupy(decoders, 50)
        decoders.check(clock.now + 0.01)
        opened.set()


def test_cancelled_images_are_excluded_from_the_estimate(decoders: Decoders, clock: Clock) -> None:
    opened, futures = occupy(decoders, 20)
    for future in futures:
        future.cancel()
    decoders.check(clock.now + 10 * USUAL)
    opened.set()


def test_failed_images_count_as_finished(decoders: Decoders, clock: Clock) -> None:
    for _ in range(20):
        with pytest.raises(ZeroDivisionError):
            decoders.submit(divmod, 1, 0).result()
    decoders.check(clock.now + 10 * USUAL)
