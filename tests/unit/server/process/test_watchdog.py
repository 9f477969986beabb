"""Runs that take too long: which are terminated, and when a model is suspended and accepts work again."""

import logging
import os
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest

from clock import Clock
from medserve_server.config import Settings
from medserve_server.engine.model import Model
from medserve_server.engine.session import RUNS, Run, Session
from medserve_server.errors import DeadlineExceeded, Unavailable
from medserve_server.process import watchdog
from medserve_server.process.watchdog import Watchdog, exit_soon
from medserve_server.registry.integrity import read_model
from medserve_server.telemetry.metrics import Metrics
from samples import onnx_models
from waiting import PATIENCE, wait_until

LIMIT = 10.0


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(watchdog, "time", clock)
    monkeypatch.setattr("medserve_server.engine.session.time", clock)
    return clock


def session(folder: Path, model: onnx.ModelProto, name: str = "m") -> Session:
    path = onnx_models.save(folder, name, model)
    return Session(read_model(path, max_bytes=2**20, listed=None, public_key=None), "cpu", Settings(threads=1))


@pytest.fixture
def model(tmp_path: Path) -> Iterator[Model]:
    path = onnx_models.save(tmp_path, "served", onnx_models.add(1))
    file = read_model(path, max_bytes=2**20, listed=None, public_key=None)
    made = Model("served", "1", file, Settings(threads=1), Metrics())
    yield made
    made.close()


@contextmanager
def running(of: Session, began: float) -> Iterator[ort.RunOptions]:
    """A run of a session that is stuck in a node: it ignores the request to terminate."""
    options = ort.RunOptions()
    key = -len(RUNS) - 1  # no thread has such a number
    RUNS[key] = Run(of, options, began)
    try:
        yield options
    finally:
        del RUNS[key]


def hangs(model: Model) -> bool:
    """Whether it refuses work; a function, since mypy does not expect a property to change."""
    try:
        model.check(1, 2, None)
    except Unavailable as error:
        assert "a run hangs" in error.message  # noqa: PT017 - another reason is another failure
        return True
    return False


def overdue_runs(model: Model) -> float:
    return model.metrics._overdue_runs._value.get()  # type: ignore[no-any-return]  # noqa: SLF001 - what /metrics tells


def test_a_run_that_exceeds_the_limit_is_terminated_and_the_next_one_is_not(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    endless = session(tmp_path, onnx_models.loop())
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(endless.run, {"x": np.full((1, 1), 1e9, np.float32)}, ["y"])
        wait_until(lambda: bool(RUNS), "the run")
        Watchdog(0.0).check()
        with pytest.raises(DeadlineExceeded, match="--max-run-seconds"):
            running.result(PATIENCE)
    (record,) = caplog.records
    assert record.getMessage() == f"{endless.path}: a run exceeded --max-run-seconds 0 and is terminated"
    assert RUNS == {}
    assert endless.run({"x": np.full((1, 1), 3, np.float32)}, ["y"])["y"].shape == (1, 1)


def test_a_run_within_the_limit_goes_on(clock: Clock, model: Model) -> None:
    began = clock.now
    with running(model.session, began) as options:
        clock.sleep(LIMIT - 0.01)
        Watchdog(LIMIT).check()
        assert not options.terminate
        clock.sleep(0.02)
        Watchdog(LIMIT).check()
        assert options.terminate
    assert overdue_runs(model) == 1


def test_a_model_whose_run_does_not_end_is_suspended_until_it_ends(
    clock: Clock, model: Model, caplog: pytest.LogCaptureFixture
) -> None:
    dog = Watchdog(LIMIT)
    with running(model.session, clock.now):
        clock.sleep(2 * LIMIT)
        dog.check()
        assert not hangs(model), "it may end now that it is asked to"
        for _ in range(3):
            dog.check()
            assert hangs(model)
        assert overdue_runs(model) == 1
    dog.check()
    assert not hangs(model)
    dog.check()
    assert [record.getMessage() for record in caplog.records if "hangs" in record.getMessage()] == [
        "served/1 hangs; its calls are refused until the run ends",
        "served/1 no longer hangs and accepts calls again",
    ]


def test_only_the_model_that_hangs_is_suspended(clock: Clock, model: Model, tmp_path: Path) -> None:
    other = session(tmp_path, onnx_models.add(2), "other")
    dog = Watchdog(LIMIT)
    with running(other, clock.now), running(model.session, clock.now + 2 * LIMIT):
        clock.sleep(2 * LIMIT)
        dog.check()
        dog.check()
        assert not hangs(model)
    dog.check()


@pytest.mark.parametrize(("provider", "terminated"), [("cpu", True), ("tensorrt", False)])
def test_a_model_that_is_loaded_is_bounded_unless_its_provider_compiles(
    clock: Clock, tmp_path: Path, provider: str, terminated: bool
) -> None:
    loading = session(tmp_path, onnx_models.add(1))
    loading.provider = provider  # type: ignore[assignment]
    dog = Watchdog(LIMIT)
    with running(loading, clock.now) as options:
        clock.sleep(2 * LIMIT)
        dog.check()
        dog.check()
        assert options.terminate is terminated
    dog.check()


class Owner:
    """Of a session; counts its notices, and raises at each."""

    def __init__(self) -> None:
        self.notices: list[str] = []

    def _note(self, notice: str) -> None:
        self.notices.append(notice)
        raise ValueError(notice)

    def overdue(self) -> None:
        self._note("overdue")

    def suspend(self, latest: float) -> None:
        self._note(f"suspend {latest:g}")

    def resume(self) -> None:
        self._note("resume")


def test_an_owner_that_fails_at_a_notice_keeps_no_other_from_its_own(
    clock: Clock, model: Model, tmp_path: Path
) -> None:
    broken = session(tmp_path, onnx_models.add(1))
    broken.owner = owner = Owner()
    dog = Watchdog(LIMIT)
    with (
        running(broken, clock.now),
        running(model.session, clock.now),
        running(broken, clock.now),
    ):
        clock.sleep(2 * LIMIT)
        dog.check()
        dog.check()
        assert hangs(model)
    dog.check()
    assert not hangs(model)
    assert owner.notices == ["overdue", "overdue", f"suspend {1000 + LIMIT:g}", "resume"]


@pytest.fixture
def exits(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """The statuses with which the process would have exited."""
    statuses: list[int] = []
    monkeypatch.setattr(os, "_exit", statuses.append)
    before = set(threading.enumerate())
    yield statuses
    for thread in set(threading.enumerate()) - before:
        thread.join(PATIENCE)


def test_at_the_end_all_runs_are_terminated_and_one_that_is_stuck_does_not_hold_up_the_exit(
    exits: list[int], model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(watchdog, "EXIT_SECONDS", 0.0)
    loading = session(tmp_path, onnx_models.add(1))
    with running(model.session, 0.0) as served, running(loading, 0.0) as unserved:
        exit_soon()
        assert served.terminate
        assert unserved.terminate
        wait_until(lambda: bool(exits), "the exit")
    assert exits == [1]
    assert caplog.records[-1].levelno == logging.ERROR
    assert "does not terminate" in caplog.records[-1].getMessage()


def test_a_process_whose_runs_end_in_time_exits_by_itself(exits: list[int]) -> None:
    before = set(threading.enumerate())
    exit_soon().set()
    for thread in set(threading.enumerate()) - before:
        thread.join(PATIENCE)
    assert exits == []
