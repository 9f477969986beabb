"""A command that fails or is interrupted leaves the folders unchanged."""

import contextlib
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from medserve_training.commands.cli import main
from medserve_training.errors import UserError
from medserve_training.staging import staged
from processes import started
from samples.made_up_data import SMALL_NETWORK, files_of, survival_recipe, write_cohort, write_pictures
from waiting import wait_until


@contextlib.contextmanager
def full_disk(free: int) -> Iterator[None]:
    """Limits the size of files, as a full disk would."""
    _, hard = limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (free, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def repository(folder: Path, model: Path, name: str = "digits") -> Path:
    """A repository with a list of checksums, a model and its card."""
    path = folder / "models" / name / "1" / "model.onnx"
    path.parent.mkdir(parents=True)
    path.write_bytes(model.read_bytes())
    (path.parent / "card.md").write_text("of an earlier run\n", encoding="utf-8")
    (folder / "models" / "SHA256SUMS").write_text(f"{'0' * 64}  {name}/1/model.onnx\n", encoding="utf-8")
    (folder / "runs" / name).mkdir(parents=True)
    (folder / "runs" / name / "metrics.json").write_text("{}\n", encoding="utf-8")
    return path


def refused(arguments: Sequence[str], capsys: pytest.CaptureFixture[str]) -> str:
    assert main(arguments) == 1
    error = capsys.readouterr().err
    assert error.startswith("medserve-train: ")
    assert error.count("\n") == 1
    return error


@pytest.mark.parametrize(
    ("command", "free"), [("fit", 30_000), ("evaluate", 100), ("evaluate", 30_000), ("quantize", 100)]
)
def test_a_full_disk_leaves_nothing(
    tmp_path: Path, digits_model: Path, capsys: pytest.CaptureFixture[str], command: str, free: int
) -> None:
    model = repository(tmp_path, digits_model)
    runs = ["--runs", str(tmp_path / "runs")]
    arguments = {
        "fit": ["fit", "digits", *SMALL_NETWORK, "--accelerator", "cpu", "--output", str(model.parent), *runs],
        "evaluate": ["evaluate", str(model), "--data", "digits", *runs],
        "quantize": ["quantize", str(model), "--data", "digits", "--rows", "64", "--max-loss", "1"],
    }[command]
    before = files_of(tmp_path)
    with full_disk(free):
        if command == "quantize":  # its libraries write to the temporary folder first
            arguments = [*arguments, "--output", str(model.parent)]
        assert "File too large" in refused(arguments, capsys)
    assert files_of(tmp_path) == before


def test_data_missing_late_in_evaluate_leaves_nothing(
    tmp_path: Path, digits_model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = repository(tmp_path, digits_model)
    before = files_of(tmp_path)
    arguments = ["evaluate", str(model), "--data", "digits", "--runs", str(tmp_path / "runs")]
    assert "expected one for each label" in refused([*arguments, "--unfamiliar", "folder:missing"], capsys)
    assert files_of(tmp_path) == before


def test_a_quantization_that_loses_too_much_leaves_nothing(
    tmp_path: Path, digits_model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = repository(tmp_path, digits_model)
    before = files_of(tmp_path)
    arguments = ["quantize", str(model), "--data", "digits", "--rows", "64", "--max-loss", "-1"]
    assert "was not written" in refused(arguments, capsys)
    assert files_of(tmp_path) == before


@pytest.mark.parametrize("command", ["fit", "evaluate", "tune", "repeat", "crossval", "article-risk"])
def test_a_destination_that_is_not_a_folder_is_reported_before_training(
    tmp_path: Path, digits_model: Path, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    model = repository(tmp_path, digits_model)
    place = str(tmp_path / "models" / "SHA256SUMS" / "below")
    survival = str(survival_recipe(tmp_path, write_cohort(tmp_path, [1.0], [True])))
    arguments = {
        "fit": ["digits", "--output", f"{place}/1"],
        "evaluate": [str(model), "--data", "digits", "--runs", place],
        "tune": ["digits", "--vary", "training.epochs=1,2", "--runs", place],
        "repeat": ["digits", "--runs", place],
        "crossval": [survival, "--output", place],
        "article-risk": ["--output", place],
    }[command]
    before = files_of(tmp_path)
    assert "SHA256SUMS is not a folder" in refused([command, *arguments], capsys)
    assert files_of(tmp_path) == before


def test_diverged_trials_leave_no_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _, recipe = write_pictures(tmp_path, [14, 14])
    runs = tmp_path / "runs"
    vary = ["--vary", "training.learning_rate=1e30,1e31", "--grid", "--runs", str(runs)]
    assert "every trial diverged" in refused(["tune", str(recipe), *SMALL_NETWORK, *vary], capsys)
    assert not runs.exists()


def test_an_interrupted_search_ends_with_one_line_and_no_file(tmp_path: Path) -> None:
    """One process runs the command once for each signal, since starting one takes several seconds."""
    _, recipe = write_pictures(tmp_path, [14, 14])
    runs = tmp_path / "runs"
    code = "import sys; from medserve_training.commands.cli import main; print([main(sys.argv[1:]) for _ in range(2)])"
    search = ["tune", str(recipe), *SMALL_NETWORK, "--trials", "10000", "--vary", "training.learning_rate=1e-4..1e-2"]
    with started(
        [sys.executable, "-c", code, *search, "--runs", str(runs)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONUNBUFFERED": "1"},
    ) as process:
        assert process.stdout is not None
        for number in (signal.SIGINT, signal.SIGTERM):
            assert any(line.startswith("trial 1:") for line in process.stdout)
            process.send_signal(number)
        output, error = process.communicate()
    assert output.splitlines()[-1:] == ["[130, 143]"], error
    assert error == "medserve-train: interrupted\nmedserve-train: terminated\n"
    assert not runs.exists()


def test_a_command_terminated_while_writing_publishes_all_or_nothing(tmp_path: Path, digits_model: Path) -> None:
    model = repository(tmp_path, digits_model)
    before = files_of(tmp_path)
    command = [sys.executable, "-m", "medserve_training", "evaluate", str(model), "--data", "digits"]
    with started([*command, "--runs", str(tmp_path / "runs")], stderr=subprocess.PIPE, text=True) as process:
        wait_until(lambda: any(tmp_path.rglob(".unfinished-*")) or process.poll() is not None)
        process.terminate()
        _, error = process.communicate()
    after = files_of(tmp_path)
    if after != before:  # the signal arrived too late
        assert {"models/digits/1/card.html", "runs/digits/evaluation.json"} <= after.keys()
        assert after["models/SHA256SUMS"] != before["models/SHA256SUMS"]
    else:
        assert (process.returncode, error) == (143, "medserve-train: terminated\n")
    assert not any(".unfinished" in name for name in after)


def test_files_are_published_together(tmp_path: Path) -> None:
    old = tmp_path / "a" / "old"
    old.parent.mkdir()
    old.write_text("old", encoding="utf-8")
    with staged() as stage:
        (stage.folder(old.parent) / "old").write_text("new", encoding="utf-8")
        (stage.folder(tmp_path / "b" / "c") / "other").write_text("other", encoding="utf-8")
        assert old.read_text(encoding="utf-8") == "old"
        assert not (tmp_path / "b").exists()
    assert files_of(tmp_path) == {"a": None, "a/old": b"new", "b": None, "b/c": None, "b/c/other": b"other"}


@pytest.mark.parametrize("failure", [KeyError("x"), KeyboardInterrupt(), SystemExit(3), UserError("x")])
def test_any_failure_leaves_nothing_behind(tmp_path: Path, failure: BaseException) -> None:
    def fail() -> None:
        with staged() as stage:
            (stage.folder(tmp_path / "a" / "b") / "file").write_text("half", encoding="utf-8")
            raise failure

    with pytest.raises(type(failure)):
        fail()
    assert files_of(tmp_path) == {}


def test_a_folder_in_place_of_a_file_is_reported_before_anything_is_moved(tmp_path: Path) -> None:
    (tmp_path / "b" / "file").mkdir(parents=True)
    before = files_of(tmp_path)

    def write() -> None:
        with staged() as stage:
            for name in "ab":
                (stage.folder(tmp_path / name) / "file").write_text("new", encoding="utf-8")

    with pytest.raises(UserError, match="b/file cannot be written: it is a folder"):
        write()
    assert files_of(tmp_path) == before
