"""Models that are loaded, replaced and removed when polls find changes of the repository."""

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from hashlib import sha256

import pytest

from descriptors import no_descriptors
from samples import onnx_models
from servers.model_folder import ModelFolder
from unit.server.registry.model_control import BROKEN, Controlled, controlled, errors


class Polls:
    """Takes the place of `asyncio.sleep`: the repository is polled only when a test calls `next`."""

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


@asynccontextmanager
async def polled(folder: ModelFolder, **others: object) -> AsyncIterator[tuple[Controlled, Polls]]:
    """Control that has started; it polls when a test calls `Polls.next`."""
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
async def test_while_the_repository_cannot_be_read_what_is_served_stays_and_one_line_is_logged(
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


async def test_a_listing_that_names_another_checksum_withdraws_nothing_and_is_in_the_index(folder: ModelFolder) -> None:
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
