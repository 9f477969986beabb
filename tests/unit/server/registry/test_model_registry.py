"""Which model a request finds by name and version, and what it is told where it finds none."""

from collections.abc import Callable, Iterator
from pathlib import Path

import grpc
import pytest

from medserve_server.config import Settings
from medserve_server.engine.model import Model
from medserve_server.errors import NotFound, Unavailable
from medserve_server.registry import registry
from medserve_server.registry.integrity import read_model
from medserve_server.registry.registry import ModelRegistry
from medserve_server.telemetry.metrics import Metrics
from samples import onnx_models

Make = Callable[[str, int], Model]


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Make]:
    """Loads y = x + 1 under a name and a version."""
    settings, metrics, made = Settings(threads=1), Metrics(), list[Model]()
    path = onnx_models.save(tmp_path, "m", onnx_models.add(1))
    file = read_model(path, max_bytes=2**20, listed=None, public_key=None)

    def load(name: str, version: int) -> Model:
        made.append(Model(name, str(version), file, settings, metrics))
        return made[-1]

    yield load
    for model in made:
        model.close()


def filled(make: Make, *models: tuple[str, int]) -> ModelRegistry:
    made = ModelRegistry()
    for name, version in models:
        assert made.put(make(name, version)) is None
    made.ready = True
    return made


def keys(models: ModelRegistry) -> list[tuple[str, str]]:
    return [(model.name, model.version) for model in models]


def test_without_a_version_the_highest_number_is_found(make: Make) -> None:
    models = filled(make, ("a", 9), ("a", 10), ("a", 2), ("b", 1))
    assert models.get("a", "", lists_models=True).version == "10"
    assert [models.get("a", version, lists_models=True).version for version in ("2", "9", "10")] == ["2", "9", "10"]
    assert models.versions("a") == ["2", "9", "10"]
    assert keys(models) == [("a", "2"), ("a", "9"), ("a", "10"), ("b", "1")]
    assert len(models) == 4


def test_a_model_that_is_put_replaces_the_one_of_its_version(make: Make) -> None:
    models = filled(make, ("a", 1), ("a", 2))
    old, new = models.get("a", "1", lists_models=True), make("a", 1)
    assert models.put(new) is old
    assert models.get("a", "1", lists_models=True) is new
    assert len(models) == 2


def test_a_model_that_is_removed_is_not_found_and_the_others_are(make: Make) -> None:
    models = filled(make, ("a", 1), ("a", 2), ("b", 1))
    newest = models.get("a", "", lists_models=True)
    assert models.remove("a", "2") is newest
    assert models.get("a", "", lists_models=True).version == "1"
    models.remove("a", "1")
    assert keys(models) == [("b", "1")]
    assert models.versions("a") == []
    with pytest.raises(NotFound, match="model_name: is 'a'"):
        models.get("a", "", lists_models=True)


def test_a_change_does_not_disturb_who_looks_at_all_models(make: Make) -> None:
    models = filled(make, ("a", 1), ("b", 1))
    looking = iter(models)
    first = next(looking)
    models.remove("b", "1")
    models.put(make("c", 1))
    assert [first.name, *(model.name for model in looking)] == ["a", "b"]


def test_a_request_that_begins_is_counted_until_it_ends(make: Make) -> None:
    models = filled(make, ("a", 1))
    model, request = models.begin("a", "", "image_classification", lists_models=True)
    assert (model.version, model.metrics.inflight) == ("1", 1)
    with pytest.raises(NotFound):
        models.begin("b", "", "image_classification", lists_models=True)
    assert model.metrics.inflight == 1
    request.end(grpc.StatusCode.OK)
    assert model.metrics.inflight == 0


def test_what_is_not_served_is_told_with_what_is(make: Make) -> None:
    models = filled(make, ("chest-xray", 9), ("chest-xray", 10), ("risk", 1))
    with pytest.raises(NotFound) as caught:
        models.get("chest-xrays", "", lists_models=True)
    assert caught.value.message == (
        "model_name: is 'chest-xrays' (did you mean chest-xray?); the served models are chest-xray, risk"
    )
    with pytest.raises(NotFound, match="model_name: is empty; the served models are chest-xray, risk"):
        models.get("", "", lists_models=True)
    with pytest.raises(NotFound) as caught:
        models.get("chest-xray", "3", "name", "version", lists_models=True)
    assert caught.value.message == "version: is '3'; the versions of chest-xray are 9, 10"
    assert [one.field for one in caught.value.violations] == ["version"]
    with pytest.raises(NotFound) as caught:
        models.get("z" * 1000, "", "name", lists_models=True)
    assert caught.value.message == f"name: is '{'z' * 128}'; the served models are chest-xray, risk"


def test_who_may_not_list_models_learns_no_names_and_no_versions(make: Make) -> None:
    models = filled(make, ("chest-xray", 9), ("risk", 1))
    for name, version in (("chest-xrays", ""), ("chest-xray", "3"), ("", "")):
        with pytest.raises(NotFound) as caught:
            models.get(name, version, lists_models=False)
        assert "risk" not in caught.value.message
        assert "9" not in caught.value.message
        assert "listing them requires a token with the scope metadata" in caught.value.message


def test_an_empty_registry_says_so() -> None:
    models = ModelRegistry()
    models.ready = True
    with pytest.raises(NotFound, match="model_name: is 'a'; no models are served yet"):
        models.get("a", "", lists_models=True)


def test_of_many_models_none_is_suggested(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "MAX_COMPARED", 2)
    models = filled(make, ("chest-xray", 1), ("risk", 1))
    with pytest.raises(NotFound, match="did you mean"):
        models.get("chest-xrays", "", lists_models=True)
    models.put(make("third", 1))
    with pytest.raises(NotFound) as caught:
        models.get("chest-xrays", "", lists_models=True)
    assert caught.value.message == "model_name: is 'chest-xrays'; the served models are chest-xray, risk, third"


def test_while_the_server_starts_only_loaded_models_are_found_and_the_rest_may_be_tried_again(make: Make) -> None:
    models = filled(make, ("a", 1))
    models.ready = False
    assert models.get("a", "", lists_models=True).version == "1"
    assert models.get("a", "1", lists_models=True).version == "1"
    for name, version in (("b", ""), ("a", "2"), ("", "")):
        with pytest.raises(Unavailable, match="the server is starting"):
            models.get(name, version, lists_models=True)
