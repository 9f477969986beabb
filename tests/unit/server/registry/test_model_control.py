"""Models that are loaded at startup and on request."""

import errno
import os
from collections.abc import Awaitable, Callable

import pytest

from medserve_server.errors import ModelLoadError, ModelRefused, NotFound, Unsupported
from samples import onnx_models
from servers.model_folder import ModelFolder
from unit.server.registry.model_control import BROKEN, controlled, errors


async def test_all_models_are_served_from_startup(folder: ModelFolder) -> None:
    for version in (1, 2):
        folder.publish("a", version, onnx_models.add(version))
    folder.publish("b", 1, onnx_models.add(3))
    async with controlled(folder, "none") as made:
        assert (made.models.ready, made.served()) == (False, set())
        await made.control.start()
        served = {("a", "1"), ("a", "2"), ("b", "1")}
        assert (made.models.ready, made.served()) == (True, served)
        assert await made.index() == dict.fromkeys(served, ("READY", ""))
        await made.control.poll()  # returns: this repository is not polled


@pytest.mark.parametrize("mode", ["none", "explicit"])
async def test_a_model_that_is_refused_at_startup_is_an_error_with_its_path(
    folder: ModelFolder, mode: str, caplog: pytest.LogCaptureFixture
) -> None:
    path = folder.publish("a", 1, BROKEN)
    async with controlled(folder, mode, load_model=("a",) if mode == "explicit" else ()) as made:
        with pytest.raises(ModelLoadError, match=f"{path}: ONNX Runtime cannot load"):
            await made.control.start()
        assert not made.models.ready
    assert errors(caplog) == [], "the error is the message; it is not logged as well"


async def test_an_empty_or_missing_repository_is_an_error_unless_models_may_come(folder: ModelFolder) -> None:
    async with controlled(folder, "none") as made:
        with pytest.raises(ModelLoadError, match="contains no model; expected a folder with"):
            await made.control.start()
    for mode in ("poll", "explicit"):
        async with controlled(folder, mode) as made:
            await made.control.start()
            assert (made.models.ready, made.served()) == (True, set())
    folder.folder.rmdir()
    for mode in ("none", "poll", "explicit"):
        async with controlled(folder, mode) as made:
            with pytest.raises(ModelLoadError, match=f"the folder {folder.folder} does not exist; expected"):
                await made.control.start()


async def test_a_checksum_file_that_is_wrong_is_an_error_at_startup(folder: ModelFolder) -> None:
    folder.publish("a", 1, onnx_models.add(1))
    (folder.folder / "SHA256SUMS").write_text("not a checksum\n")
    async with controlled(folder, "none") as made:
        with pytest.raises(ModelLoadError, match="SHA256SUMS:1: expected 64 hexadecimal digits"):
            await made.control.start()


@pytest.mark.parametrize("mode", ["none", "poll"])
async def test_only_explicit_control_loads_on_request(folder: ModelFolder, mode: str) -> None:
    folder.publish("a", 1, onnx_models.add(1))
    async with controlled(folder, mode) as made:
        await made.control.start()
        actions: list[Callable[[str], Awaitable[None]]] = [made.control.load, made.control.unload]
        for action in actions:
            with pytest.raises(Unsupported, match=f"only with --model-control explicit; this server has {mode}"):
                await action("a")
        assert made.served() == {("a", "1")}


async def test_explicit_control_serves_what_it_is_asked_for(folder: ModelFolder) -> None:
    for name in ("a", "b"):
        folder.publish(name, 1, onnx_models.add(1))
    async with controlled(folder, "explicit", load_model=("b",)) as made:
        await made.control.start()
        assert await made.index() == {("a", "1"): ("UNAVAILABLE", "not loaded"), ("b", "1"): ("READY", "")}
        await made.control.load("a")
        folder.publish("a", 2, onnx_models.add(2))
        assert made.served() == {("a", "1"), ("b", "1")}
        await made.control.load("a")
        assert made.served() == {("a", "1"), ("a", "2"), ("b", "1")}
        await made.control.unload("a")
        assert made.served() == {("b", "1")}
        assert (await made.index())["a", "2"] == ("UNAVAILABLE", "not loaded")
        await made.control.load("a")
        assert made.served() == {("a", "1"), ("a", "2"), ("b", "1")}


async def test_a_model_to_load_at_startup_that_is_missing_is_named(folder: ModelFolder) -> None:
    folder.publish("a", 1, onnx_models.add(1))
    async with controlled(folder, "explicit", load_model=("a", "z", "y")) as made:
        with pytest.raises(ModelLoadError, match=r"--load-model y: --models .* has no such model"):
            await made.control.start()


async def test_what_is_not_there_can_neither_be_loaded_nor_unloaded(folder: ModelFolder) -> None:
    folder.publish("a", 1, onnx_models.add(1))
    async with controlled(folder, "explicit") as made:
        await made.control.start()
        with pytest.raises(NotFound, match="model_name: is 'z', which is not in the repository") as caught:
            await made.control.load("z")
        assert [one.field for one in caught.value.violations] == ["model_name"]
        with pytest.raises(NotFound, match="model_name: is 'a', which is not loaded"):
            await made.control.unload("a")
        with pytest.raises(NotFound) as caught:
            await made.control.load("z" * 1000)
        assert len(caught.value.message) < 200


async def test_each_request_to_load_a_refused_model_tries_again_and_returns_the_reason(folder: ModelFolder) -> None:
    folder.publish("a", 1, onnx_models.add(1))
    async with controlled(folder, "explicit", load_model=("a",)) as made:
        await made.control.start()
        folder.publish("a", 2, BROKEN)
        for _ in range(2):
            with pytest.raises(ModelRefused, match="a: version 2: ONNX Runtime cannot load") as caught:
                await made.control.load("a")
            assert str(folder.folder) not in caught.value.message
        assert made.served() == {("a", "1")}, "what was served stays"
        folder.publish("a", 2, onnx_models.add(2))
        await made.control.load("a")
        assert made.served() == {("a", "1"), ("a", "2")}


async def test_a_repository_that_cannot_be_read_is_an_error_without_its_path(
    folder: ModelFolder, caplog: pytest.LogCaptureFixture
) -> None:
    folder.publish("a", 1, onnx_models.add(1))
    async with controlled(folder, "explicit", load_model=("a",)) as made:
        await made.control.start()
        folder.folder.rename(folder.folder.with_name("away"))
        for action in (made.control.load("a"), made.control.index()):
            with pytest.raises(ModelRefused) as caught:
                await action
            assert caught.value.message == "the model repository cannot be read; see the server log"
        assert all(str(folder.folder) in line for line in errors(caplog))
        assert len(errors(caplog)) == 2
        assert made.served() == {("a", "1")}
        await made.control.unload("a")  # needs no repository
        assert made.served() == set()


@pytest.mark.parametrize("code", [errno.EIO, errno.EACCES])
async def test_an_error_of_the_disk_has_the_text_of_the_operating_system(
    folder: ModelFolder, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    def fail(*_: object) -> None:
        raise OSError(code, os.strerror(code))

    async with controlled(folder, "poll") as made:
        monkeypatch.setattr(os, "scandir", fail)
        with pytest.raises(ModelLoadError, match=f"--models {folder.folder}: {os.strerror(code)}"):
            await made.control.start()
        monkeypatch.undo()


async def test_a_model_that_hangs_is_unavailable_in_the_index_until_it_resumes(folder: ModelFolder) -> None:
    folder.publish("a", 1, onnx_models.add(1))
    folder.publish("a", 2, onnx_models.add(2))
    async with controlled(folder, "none") as made:
        await made.control.start()
        model = made.models.get("a", "2", lists_models=True)
        model.suspend(0.0)
        assert await made.index() == {
            ("a", "1"): ("READY", ""),
            ("a", "2"): ("UNAVAILABLE", "a run of the model hangs"),
        }
        model.resume()
        assert (await made.index())["a", "2"] == ("READY", "")
