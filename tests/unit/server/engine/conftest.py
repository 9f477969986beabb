"""A clock for the batcher that only tests advance."""

import pytest

from clock import Clock


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr("medserve_server.engine.batcher.time", clock)
    return clock
