"""What is found in a model repository that changes while it is read."""

import os
from pathlib import Path
from typing import Any

import pytest

from medserve_server.registry.discovery import find_versions

VERSIONS = [("a", "1"), ("a", "2"), ("b", "1")]
SCANS = 6  # of the repository, two models and three versions


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    for name, version in VERSIONS:
        path = tmp_path / "models" / name / version / "model.onnx"
        path.parent.mkdir(parents=True)
        path.touch()
    return tmp_path / "models"


@pytest.mark.parametrize("replaced", [False, True], ids=["moved", "replaced"])
@pytest.mark.parametrize("step", range(2 * SCANS))
def test_a_repository_that_is_moved_meanwhile_is_never_read_in_part(
    repository: Path, monkeypatch: pytest.MonkeyPatch, step: int, replaced: bool
) -> None:
    """As when a disk is lost: before or after any of the folders is listed."""
    scandir = os.scandir
    moments = 0

    def move_at_the_moment() -> None:
        nonlocal moments
        if moments == step:
            repository.rename(repository.with_name("away"))
            if replaced:
                repository.mkdir()
        moments += 1

    def moving_scandir(*arguments: Any) -> Any:  # noqa: ANN401 - as os.scandir
        move_at_the_moment()
        try:
            return scandir(*arguments)
        finally:
            move_at_the_moment()

    monkeypatch.setattr(os, "scandir", moving_scandir)
    with pytest.raises(OSError, match=r"No such file|was replaced while it was read"):
        find_versions(repository)
    assert moments > step
    monkeypatch.undo()
    if replaced:
        repository.rmdir()
    repository.with_name("away").rename(repository)
    assert sorted(find_versions(repository)) == VERSIONS
