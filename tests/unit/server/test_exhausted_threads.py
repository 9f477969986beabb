"""If threads cannot be started, loaded models keep answering, and everything can still be closed."""

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from exhausted_threads import MESSAGE, no_new_threads
from medserve_server.config import Settings
from medserve_server.engine.model import Model
from medserve_server.engine.work import DEFAULT_PRIORITY, Outcome, Work
from medserve_server.inputs.decoders import Decoders
from medserve_server.registry.discovery import find_versions
from medserve_server.registry.loader import Content, ModelLoader
from medserve_server.registry.registry import ModelRegistry
from medserve_server.supervise import Pool, ThreadStartError
from medserve_server.telemetry.metrics import Metrics
from samples import onnx_models
from waiting import PATIENCE, wait_until

ROWS = 4


class Served:
    """A loader of the models in a folder, and the served models."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.thread = Pool(1)
        self.models = ModelRegistry()
        settings = Settings(models=folder, threads=1, max_batch_rows=ROWS)
        self.loader = ModelLoader(settings, self.models, Metrics(), self.thread)

    def update(self) -> None:
        contents = {version: Content(found, None) for (_, version), found in find_versions(self.folder).items()}
        self.thread.submit(self.loader.bring_up_to_date, "m", contents, frozenset()).result(PATIENCE)

    def close(self) -> None:
        self.loader.stop()
        self.thread.submit(self.loader.close).result(PATIENCE)
        self.thread.shutdown()


@pytest.fixture
def served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Served:
    monkeypatch.setattr("medserve_server.config.available_cpus", lambda: 3)
    onnx_models.save(tmp_path, "m", onnx_models.add(1))
    return Served(tmp_path)


class Requests:
    """Sends requests to a model and counts the outcomes."""

    def __init__(self, model: Model) -> None:
        self.model = model
        self.outcomes: list[Outcome] = []

    def send(self, run: Callable[[], None], count: int) -> None:
        for number in range(count):
            inputs = {"x": np.full((ROWS, 1), number, np.float32)}
            deadline = time.monotonic() + PATIENCE
            self.model.submit(Work(inputs, ROWS, ("y",), self._deliver, deadline, DEFAULT_PRIORITY, number))
        run()

    def _deliver(self, outcomes: list[tuple[Work, Outcome]]) -> None:
        for work, outcome in outcomes:
            assert isinstance(outcome, dict)
            assert (outcome["y"] == work.inputs["x"] + 1).all()
            self.outcomes.append(outcome)


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_a_pool_starts_no_thread_after_its_creation(threads: int) -> None:
    with Pool(threads) as pool, no_new_threads():
        for _ in range(3):
            together = threading.Barrier(threads)
            for future in [pool.submit(together.wait, PATIENCE) for _ in range(threads)]:
                future.result(PATIENCE)


@pytest.mark.parametrize(("threads", "after"), [(1, 0), (2, 0), (2, 1), (5, 3), (5, 4)])
def test_a_pool_that_cannot_start_all_threads_leaves_none_behind(threads: int, after: int) -> None:
    before = set(threading.enumerate())
    with no_new_threads(after), pytest.raises(ThreadStartError, match=MESSAGE):
        Pool(threads)
    assert set(threading.enumerate()) <= before


def test_decoders_start_no_thread_after_their_creation() -> None:
    with Decoders(2) as decoders, no_new_threads():
        assert [decoders.submit(divmod, 7, 2).result(PATIENCE) for _ in range(5)] == [(3, 1)] * 5


@pytest.mark.parametrize("count", [1, 2, 7])
def test_a_loaded_model_answers_and_closes_without_new_threads(served: Served, count: int) -> None:
    served.update()
    (model,) = served.models
    requests = Requests(model)
    run = model.schedule_run
    with no_new_threads():
        for _ in range(3):
            requests.send(run, count)
    requests.send(run, count)
    wait_until(lambda: len(requests.outcomes) == 4 * count, "every request to be answered")
    served.close()


def test_a_model_whose_threads_do_not_start_is_rejected_and_loaded_later(served: Served) -> None:
    for after in range(3):  # of three threads
        with no_new_threads(after):
            served.update()
        refusal = served.loader.refused["m", "1"]
        assert (MESSAGE in refusal.reason, refusal.transient) == (True, True)
        assert list(served.models) == []
    served.update()
    requests = Requests(*served.models)
    requests.send(requests.model.schedule_run, 1)
    wait_until(lambda: len(requests.outcomes) == 1, "an answer")
    served.close()


@pytest.fixture
def retired(served: Served) -> Iterator[Model]:
    """A model that was removed from service while no thread could be started."""
    served.update()
    (model,) = served.models
    with no_new_threads():
        served.thread.submit(served.loader.unload, ("m", "1")).result(PATIENCE)
    yield model
    served.close()


def test_a_model_is_closed_without_new_threads(retired: Model) -> None:
    wait_until(lambda: retired._batcher.closed, "the model to be closed")  # noqa: SLF001 - nothing else shows it
