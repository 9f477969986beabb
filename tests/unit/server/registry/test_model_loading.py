"""Which versions are loaded, replaced and unloaded, and what the metrics say of those that are refused."""

from collections.abc import Callable, Iterator
from pathlib import Path

import grpc
import numpy as np
import pytest

from medserve_server.config import Settings
from medserve_server.engine.model import Model
from medserve_server.registry.discovery import Found, Key, find_versions
from medserve_server.registry.loader import Content, ModelLoader
from medserve_server.registry.registry import ModelRegistry
from medserve_server.supervise import Pool
from medserve_server.telemetry.metrics import Metrics
from samples import onnx_models
from servers.model_folder import ModelFolder
from waiting import PATIENCE, wait_until

BROKEN = b"no model"


class Loading:
    """A loader of the models in a folder, and what it serves."""

    def __init__(self, folder: ModelFolder, **settings: object) -> None:
        self.folder = folder
        self.models = ModelRegistry()
        self.models.ready = True
        self.metrics = Metrics()
        self.closed = False
        self._thread = Pool(1)
        made = Settings.model_validate({"models": folder.folder, "threads": 1, **settings})
        self.loader = ModelLoader(made, self.models, self.metrics, self._thread)

    def update(self, *unsettled: Key, name: str = "m", more: dict[str, Content] | None = None) -> list[str]:
        """Returns the versions that are served then, lowest first."""
        contents = {
            version: Content(found, None)
            for (found_name, version), found in find_versions(self.folder.folder).items()
            if found_name == name
        }
        self._call(lambda: self.loader.bring_up_to_date(name, contents | (more or {}), frozenset(unsettled)))
        return self.models.versions(name)

    def unload(self, version: str) -> None:
        self._call(lambda: self.loader.unload(("m", version)))

    def model(self, version: str = "") -> Model:
        return self.models.get("m", version, lists_models=True)

    def reason(self, version: str, name: str = "m") -> str:
        return self.loader.refused[name, version].reason

    def sample(self, family: str, **labels: str) -> float | None:
        return self.metrics.registry.get_sample_value(family, labels)

    def close(self) -> None:
        self.loader.stop()
        self._call(self.loader.close)
        self._thread.shutdown()
        self.closed = True

    def _call(self, function: Callable[[], None]) -> None:
        self._thread.submit(function).result(PATIENCE)


Make = Callable[..., Loading]


@pytest.fixture
def loading(tmp_path: Path) -> Iterator[Make]:
    made: list[Loading] = []

    def make(**settings: object) -> Loading:
        made.append(Loading(ModelFolder(tmp_path / f"models{len(made)}"), **settings))
        return made[-1]

    yield make
    for each in made:
        if not each.closed:
            each.close()


def test_a_file_that_was_only_touched_is_not_loaded_again(loading: Make) -> None:
    made = loading()
    made.folder.publish("m", 1, onnx_models.add(1))
    assert made.update() == ["1"]
    model = made.model()
    made.folder.publish("m", 1, onnx_models.add(1))
    assert made.update() == ["1"]
    assert made.model() is model
    made.folder.publish("m", 1, onnx_models.add(2))
    assert made.update() == ["1"]
    assert made.model() is not model


def test_a_model_whose_external_data_changed_is_loaded_again(loading: Make) -> None:
    made = loading()
    path = made.folder.publish("m", 1, onnx_models.external("numbers"))
    for number in (5.0, 6.0):
        path.with_name("numbers").write_bytes(np.float32(number).tobytes())
        assert made.update() == ["1"]
        assert made.model().session.run({"x": np.zeros((1, 1), np.float32)}, ["y"])["y"] == number


def test_a_model_that_is_too_large_is_refused_with_or_without_its_external_data(loading: Make) -> None:
    made = loading(max_model_mib=1)
    mib = 1024 * 1024
    path = made.folder.publish("m", 1, onnx_models.external("numbers"))
    path.with_name("numbers").write_bytes(bytes(mib + 1))
    made.folder.publish("m", 2, bytes(mib + 2))
    assert made.update() == []
    assert made.reason("1") == f"its external data has {mib + 1} bytes, at most {mib} are allowed"
    assert made.reason("2") == f"it has {mib + 2} bytes, at most {mib} are allowed"


def test_a_policy_serves_the_latest_version_that_can_be_served(loading: Make) -> None:
    made = loading(version_policy="latest:1")
    made.folder.publish("m", 1, onnx_models.add(1))
    made.folder.publish("m", 2, onnx_models.add(2))
    assert made.update() == ["2"], "the first one is not even loaded"
    made.folder.publish("m", 3, BROKEN)
    assert made.update() == ["2"]
    made.folder.publish("m", 3, onnx_models.add(3))
    assert made.update() == ["3"]
    made.folder.remove("m", 3)
    assert made.update() == ["2"]
    made.folder.publish("m", 10, onnx_models.add(10))
    assert made.update() == ["10"]


def test_a_version_that_has_not_settled_is_left_alone(loading: Make) -> None:
    made = loading(version_policy="latest:1")
    made.folder.publish("m", 1, onnx_models.add(1))
    assert made.update(("m", "1")) == []
    assert made.update() == ["1"]
    before = made.model()
    made.folder.publish("m", 1, onnx_models.add(2))
    made.folder.publish("m", 2, onnx_models.add(2))
    assert made.update(("m", "1"), ("m", "2")) == ["1"]
    assert made.model() is before
    assert made.update() == ["2"]


def test_models_do_not_disturb_each_other(loading: Make) -> None:
    made = loading()
    made.folder.publish("m", 1, onnx_models.add(1))
    made.folder.publish("other", 1, BROKEN)
    assert made.update() == ["1"]
    assert made.update(name="other") == []
    reason = made.reason("1", "other")
    made.folder.remove("m", 1)
    assert made.update() == []
    assert made.reason("1", "other") == reason


def test_while_a_folder_can_not_be_listed_nothing_in_it_is_unloaded(loading: Make) -> None:
    made = loading()
    path = made.folder.publish("m", 1, onnx_models.add(1))
    assert made.update() == ["1"]
    made.folder.remove("m", 1)
    problem = "the folder cannot be listed: Input/output error"
    unlisted = {"": Content(Found(path.parent.parent, problem=problem), None)}
    assert made.update(more=unlisted) == ["1"]
    assert made.reason("") == problem
    assert made.update() == []
    assert made.loader.refused == {}


@pytest.mark.parametrize(
    ("name", "version", "reason"),
    [("m", "first", "'first' is not a valid version"), ("a model", "1", "'a model' is not a valid model name")],
)
def test_folders_with_other_names_are_refused_and_make_no_series(
    loading: Make, name: str, version: str, reason: str
) -> None:
    made = loading()
    made.folder.publish(name, version, onnx_models.add(1))
    assert made.update(name=name) == []
    assert reason in made.reason(version, name)
    assert made.sample("medserve_model_refused", model=name, version=version) is None
    assert made.sample("medserve_model_load_failures_total") == 1


def test_the_metrics_name_what_is_refused_until_it_is_right(loading: Make) -> None:
    made = loading()
    made.folder.publish("m", 1, onnx_models.add(1))
    made.update()
    made.folder.publish("m", 1, BROKEN)
    made.update()
    key = {"model": "m", "version": "1"}
    assert made.sample("medserve_model_refused", **key) == 1
    assert made.sample("medserve_model_ready", **key) == 1, "the previous one is served"
    made.folder.publish("m", 1, onnx_models.add(2))
    made.update()
    assert made.sample("medserve_model_refused", **key) is None
    assert made.sample("medserve_model_ready", **key) == 1


def test_a_model_that_is_unloaded_answers_its_last_request_and_leaves_no_series(loading: Make) -> None:
    made = loading()
    made.folder.publish("m", 1, onnx_models.add(1))
    made.update()
    key = {"model": "m", "version": "1"}
    model, request = made.models.begin("m", "", "inference", lists_models=True)
    made.unload("1")
    assert made.models.versions("m") == []
    assert model.session.run({"x": np.ones((1, 1), np.float32)}, ["y"])["y"] == 2
    assert made.sample("medserve_model_ready", **key) == 1, "it has not ended yet"
    request.end(grpc.StatusCode.OK)
    wait_until(lambda: made.sample("medserve_model_ready", **key) is None, "the end of its series")


def test_closing_does_not_wait_for_requests_in_flight(loading: Make) -> None:
    made = loading()
    made.folder.publish("m", 1, onnx_models.add(1))
    made.folder.publish("m", 2, onnx_models.add(2))
    made.update()
    for version in ("1", "2"):
        made.models.begin("m", version, "inference", lists_models=True)
    made.unload("1")
    made.close()
    assert made.closed


def test_a_loader_that_is_stopped_loads_nothing_more(loading: Make) -> None:
    made = loading()
    made.folder.publish("m", 1, onnx_models.add(1))
    made.loader.stop()
    assert made.update() == []
    assert made.loader.refused == {}
