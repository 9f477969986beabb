"""Models that are loaded at startup, when the repository changes, or on request, without a server around them."""

import asyncio
import errno
import logging
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from hashlib import sha256
from pathlib import Path

import pytest

from descriptors import no_descriptors
from medserve_server.config import Settings
from medserve_server.errors import ModelLoadError, ModelRefused, NotFound, Unsupported
from medserve_server.registry.control import ModelControl
from medserve_server.registry.registry import ModelRegistry
from medserve_server.telemetry.metrics import Metrics
from samples import onnx_models
from servers.model_folder import ModelFolder

BROKEN = b"no model"


class Polls:
    """Takes the place of `asyncio.sleep`: the repository is polled when a test says so, and not before."""

    def __init__(self) -> None:
        self.intervals: list[float] = []
        self._asked = asyncio.Semaphore(0)
        self._let = asyncio.Semaphore(0)

    async def sleep(self, seconds: float) -> None:
        self.intervals.append(seconds)
        self._asked.release()
        await self._let.acquire()

    async def begin(self) -> None:
        """Returns when the first poll is about to begin."""
        await self._asked.acquire()

    async def next(self, times: int = 1) -> None:
        """Has the repository polled so many times, and returns when the last poll is over."""
        for _ in range(times):
            self._let.release()
            await self._asked.acquire()


class Controlled:
    """Model control over a folder, and what it serves."""

    def __init__(self, folder: ModelFolder, settings: Settings) -> None:
        self.folder = folder
        self.models = ModelRegistry()
        self.control = ModelControl(settings, self.models, Metrics())

    def served(self) -> set[tuple[str, str]]:
        return {(model.name, model.version) for model in self.models}

    def sha256(self, name: str, version: str = "") -> str:
        return self.models.get(name, version, lists_models=True).sha256

    async def index(self) -> dict[tuple[str, str], tuple[str, str]]:
        """State and reason by name and version."""
        return {(entry.name, entry.version): (entry.state, entry.reason) for entry in await self.control.index()}


@pytest.fixture
def folder(tmp_path: Path) -> ModelFolder:
    return ModelFolder(tmp_path / "models")


@asynccontextmanager
async def controlled(folder: ModelFolder, mode: str, **others: object) -> AsyncIterator[Controlled]:
    """Control that has not started."""
    settings = Settings.model_validate({"models": folder.folder, "model_control": mode, "threads": 1, **others})
    made = Controlled(folder, settings)
    try:
        yield made
    finally:
        made.control.close()


@asynccontextmanager
async def polled(folder: ModelFolder, **others: object) -> AsyncIterator[tuple[Controlled, Polls]]:
    """Control that has started and polls when it is told to."""
    polls = Polls()
    async with controlled(folder, "poll", **others) as made:
        await made.control.start()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(asyncio, "sleep", polls.sleep)
            polling = asyncio.create_task(made.control.poll())
            await polls.begin()
            try:
                yield made, polls
            finally:
                polling.cancel()
                await asyncio.wait([polling])


def errors(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


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
    assert errors(caplog) == [], "the error is the message; it is not told twice"


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


async def test_what_appears_is_served_once_two_polls_find_it_unchanged(folder: ModelFolder) -> None:
    async with polled(folder, poll_interval=7.5) as (made, polls):
        folder.publish("a", 1, onnx_models.add(1))
        await polls.next()
        state, reason = (await made.index())["a", "1"]
        assert (state, made.served()) == ("UNAVAILABLE", set())
        assert "it is loaded if it is unchanged at the next poll" in reason
        folder.publish("a", 1, onnx_models.add(2))
        await polls.next()
        assert made.served() == set(), "it has changed again"
        await polls.next()
        assert made.served() == {("a", "1")}
        assert await made.index() == {("a", "1"): ("READY", "")}
        assert polls.intervals == [7.5] * 4


async def test_a_file_that_changes_is_replaced_once_it_has_settled(folder: ModelFolder) -> None:
    folder.publish("a", 1, onnx_models.add(1))
    async with polled(folder) as (made, polls):
        before = made.sha256("a")
        path = folder.publish("a", 1, onnx_models.add(2))
        await polls.next()
        assert made.sha256("a") == before
        assert await made.index() == {("a", "1"): ("READY", "")}
        await polls.next()
        assert made.sha256("a") == sha256(path.read_bytes()).hexdigest()


async def test_what_is_removed_is_served_no_longer(folder: ModelFolder) -> None:
    for name in ("a", "b"):
        folder.publish(name, 1, onnx_models.add(1))
    async with polled(folder) as (made, polls):
        folder.remove("a", 1)
        await polls.next()
        assert made.served() == {("b", "1")}
        assert await made.index() == {("b", "1"): ("READY", "")}


async def test_a_replacement_that_is_refused_leaves_the_model_in_service(
    folder: ModelFolder, caplog: pytest.LogCaptureFixture
) -> None:
    folder.publish("a", 1, onnx_models.add(1))
    async with polled(folder) as (made, polls):
        before = made.sha256("a")
        folder.publish("a", 1, BROKEN)
        await polls.next(5)
        assert made.sha256("a") == before
        state, reason = (await made.index())["a", "1"]
        assert state == "READY"
        assert reason.startswith("the current file is refused: ONNX Runtime cannot load")
        assert len(errors(caplog)) == 1, "the same content is not tried again"
        folder.publish("a", 1, onnx_models.add(1))
        await polls.next(2)
        assert await made.index() == {("a", "1"): ("READY", "")}


async def test_a_polled_server_starts_although_a_model_is_refused(folder: ModelFolder) -> None:
    folder.publish("a", 1, BROKEN)
    folder.publish("b", 1, onnx_models.add(1))
    async with polled(folder) as (made, polls):
        assert made.models.ready
        assert made.served() == {("b", "1")}
        state, reason = (await made.index())["a", "1"]
        assert (state, "cannot load the model" in reason) == ("UNAVAILABLE", True)
        folder.remove("a", 1)
        await polls.next()
        assert set(await made.index()) == {("b", "1")}, "nothing is left of what was refused"


def remove_folder(folder: ModelFolder) -> Callable[[], None]:
    away = folder.folder.rename(folder.folder.with_name("away"))

    def repair() -> None:
        away.rename(folder.folder)

    return repair


def break_checksums(folder: ModelFolder) -> Callable[[], None]:
    path = folder.folder / "SHA256SUMS"
    path.write_text("not a checksum\n")
    return path.unlink


@pytest.mark.parametrize("damage", [remove_folder, break_checksums])
async def test_while_the_repository_can_not_be_read_what_is_served_stays_and_one_line_says_so(
    folder: ModelFolder, caplog: pytest.LogCaptureFixture, damage: Callable[[ModelFolder], Callable[[], None]]
) -> None:
    folder.publish("a", 1, onnx_models.add(1))
    async with polled(folder) as (made, polls):
        for times in (1, 2):  # a second failure after a success is logged again
            repair = damage(folder)
            await polls.next(3)
            assert made.served() == {("a", "1")}
            assert await made.index() == {("a", "1"): ("READY", "")}
            assert len(errors(caplog)) == times
            assert errors(caplog)[-1].startswith("the served models are unchanged: ")
            assert str(folder.folder) in errors(caplog)[-1]
            repair()
            await polls.next()
        folder.publish("a", 2, onnx_models.add(2))
        await polls.next(2)
        assert made.served() == {("a", "1"), ("a", "2")}


async def test_without_free_descriptors_what_is_served_stays(folder: ModelFolder) -> None:
    folder.publish("a", 1, onnx_models.add(1))
    async with polled(folder) as (made, polls):
        folder.publish("a", 2, onnx_models.add(2))
        with no_descriptors():
            await polls.next(3)
        assert made.served() == {("a", "1")}
        await polls.next(2)
        assert made.served() == {("a", "1"), ("a", "2")}


async def test_a_poll_that_fails_unexpectedly_is_reported_and_the_next_one_goes_on(
    folder: ModelFolder, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with polled(folder) as (made, polls):
        folder.publish("a", 1, onnx_models.add(1))
        with monkeypatch.context() as patch:
            patch.setattr(os, "scandir", lambda *_: 1 / 0)
            await polls.next()
        assert errors(caplog) == ["repository failed; this is a bug"]
        await polls.next(2)
        assert made.served() == {("a", "1")}


async def test_a_listing_that_names_another_checksum_withdraws_nothing_and_is_told(folder: ModelFolder) -> None:
    path = folder.publish("a", 1, onnx_models.add(1))
    right = f"{sha256(path.read_bytes()).hexdigest()}  a/1/model.onnx\n"
    (folder.folder / "SHA256SUMS").write_text(right)
    async with polled(folder) as (made, polls):
        assert made.served() == {("a", "1")}
        (folder.folder / "SHA256SUMS").write_text(f"{'0' * 64}  a/1/model.onnx\n")
        await polls.next(2)
        assert (await made.index())["a", "1"][0] == "READY"
        assert "SHA256SUMS says 0000" in (await made.index())["a", "1"][1]
        (folder.folder / "SHA256SUMS").write_text(right)
        await polls.next(2)
        assert await made.index() == {("a", "1"): ("READY", "")}


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


async def test_a_refusal_is_told_to_who_asked_and_each_request_tries_again(folder: ModelFolder) -> None:
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


async def test_a_repository_that_can_not_be_read_is_told_without_its_path(
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
async def test_an_error_of_the_disk_is_told_in_the_words_of_the_system(
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
