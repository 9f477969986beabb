"""Reloading of files: their final content takes effect, whatever happens in between."""

import errno
import logging
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from descriptors import no_descriptors
from medserve_server import file_reloader
from medserve_server.config import SettingsError
from medserve_server.errors import Unauthenticated
from medserve_server.file_reloader import FileReloader
from medserve_server.security.auth import Tokens, new_token


@pytest.fixture(autouse=True)
def _look_at_every_call(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(file_reloader, "POLL_INTERVAL", 0.0)


def read_word(path: Path) -> str:
    word = path.read_text()
    if not word.isalpha():
        raise ValueError(f"{path}: is no word")
    return word


def failing(read: Callable[[], str], code: int, times: int) -> Callable[[], str]:
    """Reads once, then fails `failures` times, then reads again."""
    failures = iter([False, *[True] * times])

    def attempt() -> str:
        if next(failures, False):
            raise OSError(code, os.strerror(code))
        return read()

    return attempt


@pytest.mark.parametrize("times", [1, 2, 5])
@pytest.mark.parametrize("code", [errno.EMFILE, errno.EIO, errno.ENFILE, errno.ENOMEM, errno.ESTALE, errno.EACCES])
def test_a_temporarily_unreadable_change_is_read_later(tmp_path: Path, code: int, times: int) -> None:
    path = tmp_path / "file"
    path.write_text("old")
    content = FileReloader(failing(lambda: read_word(path), code, times), path)
    path.write_text("new")
    assert [content.current() for _ in range(times)] == ["old"] * times
    assert content.current() == "new"


def test_a_token_revoked_while_no_file_can_be_opened_ends_afterwards(tmp_path: Path) -> None:
    (kept, kept_line), (revoked, revoked_line) = new_token("kept", "infer"), new_token("revoked", "infer")
    path = tmp_path / "tokens"
    path.write_text(f"{kept_line}\n{revoked_line}\n")
    tokens = Tokens(path)

    def client(token: str) -> str:
        return tokens.client(
            "/inference.GRPCInferenceService/ModelInfer", [("authorization", f"Bearer {token}")]
        ).client

    path.write_text(f"{kept_line}\n")
    with no_descriptors():
        assert (client(kept), client(revoked)) == ("kept", "revoked"), "the previous content stays in use"
    with pytest.raises(Unauthenticated):
        client(revoked)
    assert client(kept) == "kept"


def test_a_temporarily_missing_folder_has_no_lasting_effect(tmp_path: Path) -> None:
    path = tmp_path / "folder/file"
    path.parent.mkdir()
    path.write_text("old")
    content = FileReloader(lambda: read_word(path), path)
    path.write_text("new")
    path.parent.rename(tmp_path / "elsewhere")
    assert content.current() == "old"
    (tmp_path / "elsewhere").rename(path.parent)
    assert content.current() == "new"


def test_a_temporarily_invalid_file_is_loaded_once_it_is_valid(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("old")
    content = FileReloader(lambda: read_word(path), path)
    for text, expected in [("0", "old"), ("old", "old"), ("1", "old"), ("new", "new"), ("2", "new"), ("old", "old")]:
        path.write_text(text)
        assert content.current() == expected


def test_contents_of_equal_size_and_time_are_distinguished(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("aaa")
    os.utime(path, ns=(0, 0))
    content = FileReloader(lambda: read_word(path), path)
    for text in ("bbb", "ccc", "aaa"):
        path.write_text(text)
        os.utime(path, ns=(0, 0))  # as with a coarse clock, or a copy that preserves the time
        assert content.current() == text


def test_a_persistent_failure_and_its_end_are_logged_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.INFO)
    path = tmp_path / "file"
    path.write_text("old")
    content = FileReloader(lambda: read_word(path), path)
    path.write_text("new")
    with no_descriptors():
        for _ in range(50):
            content.current()
    (record,) = caplog.records
    assert "Too many open files" in record.getMessage()
    assert "the previous content stays in use" in record.getMessage()
    monkeypatch.setattr(file_reloader, "REPEAT_AFTER", 0.0)
    with no_descriptors():
        content.current()
        content.current()
    assert len(caplog.records) > 1, "it is logged again after a while"
    caplog.clear()
    assert [content.current() for _ in range(3)] == ["new"] * 3
    (record,) = caplog.records
    assert "was reloaded" in record.getMessage()


def test_a_pipe_is_read_once() -> None:
    """As with `--tokens <(command)`: the content can be read only once."""
    reader, writer = os.pipe()
    try:
        os.write(writer, b"word")
        os.close(writer)
        path = Path(f"/dev/fd/{reader}")
        content = FileReloader(lambda: read_word(path), path)
        assert [content.current() for _ in range(3)] == ["word"] * 3
    finally:
        os.close(reader)


def test_a_first_read_that_fails_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "file"
    with pytest.raises(SettingsError, match=f"{path}: No such file"):
        FileReloader(lambda: read_word(path), path)
    path.write_text("word")
    with no_descriptors(), pytest.raises(SettingsError, match=f"{path}: Too many open files"):
        FileReloader(lambda: read_word(path), path)


steps = st.lists(
    st.tuples(
        st.sampled_from(["write", "replace", "remove", "wrong"]),
        st.sampled_from(["aaa", "bbb", "ccc", "dddd"]),
        st.booleans(),  # the clock stands still
        st.booleans(),  # unreadable meanwhile
    ),
    max_size=8,
)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=steps, last=st.sampled_from(["aaa", "bbb", "dddd"]))
def test_the_final_content_of_the_file_takes_effect(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, str, bool, bool]], last: str
) -> None:
    path = tmp_path_factory.getbasetemp() / "reread-word"
    path.write_text("aaa")
    content = FileReloader(lambda: read_word(path), path)
    right = {"aaa"}
    for action, word, frozen, unreadable in [*steps, ("write", last, True, False)]:
        if action == "remove":
            path.unlink(missing_ok=True)
        elif action == "replace":
            path.with_suffix(".new").write_text(word)
            path.with_suffix(".new").replace(path)
        else:
            path.write_text("1" + word if action == "wrong" else word)
        if frozen and path.exists():
            os.utime(path, ns=(0, 0))
        right |= {word}
        if unreadable:
            with no_descriptors():
                assert content.current() in right
        else:
            now = content.current()
            assert now == word or action in {"remove", "wrong"}
    assert content.current() == last


def test_a_file_that_changes_while_it_is_read_is_never_mixed(tmp_path: Path) -> None:
    """As with a certificate and its key in two files: a state read in between does not match."""
    first, second = tmp_path / "first", tmp_path / "second"
    changes: list[str] = []

    def read() -> tuple[str, str]:
        one = read_word(first)
        if changes:
            for path in (first, second):
                path.write_text(changes[0])
            del changes[0]
        return one, read_word(second)

    for path in (first, second):
        path.write_text("a")
    content = FileReloader(read, first, second)
    first.write_text("b")
    changes += ["c", "d"]
    assert [content.current() for _ in range(3)] == [("a", "a"), ("a", "a"), ("d", "d")]
