"""A temporarily unreadable model is retried; an invalid one is not."""

import errno
import logging
import os
from collections.abc import Callable, Iterator
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest

from descriptors import no_descriptors
from medserve_server.config import Settings
from medserve_server.engine.session import Session
from medserve_server.errors import ModelLoadError, TransientLoadError
from medserve_server.registry.discovery import find_versions
from medserve_server.registry.integrity import read_checksums, read_model
from medserve_server.registry.loader import Content, ModelLoader
from medserve_server.registry.registry import ModelRegistry
from medserve_server.supervise import Pool
from medserve_server.telemetry.metrics import Metrics
from samples import onnx_models


@pytest.fixture
def loader(tmp_path: Path) -> Iterator[ModelLoader]:
    thread = Pool(1)
    settings = Settings(models=tmp_path, threads=1)
    made = ModelLoader(settings, ModelRegistry(), Metrics(), thread)
    yield made
    made.stop()
    made.close()
    thread.shutdown()


def look(folder: Path, listed: str | None = None) -> dict[str, Content]:
    return {version: Content(found, listed) for (_, version), found in find_versions(folder).items()}


def bring_up_to_date(loader: ModelLoader, contents: dict[str, Content]) -> set[str]:
    """Returns the versions that are served afterwards."""
    loader.bring_up_to_date("m", contents, frozenset())
    return {version for _, version in loader.loaded}


def save_external(folder: Path, content: bytes | None, location: str = "numbers") -> Path:
    """A model whose weight is in a separate file."""
    path = folder / "m/1/model.onnx"
    path.parent.mkdir(parents=True)
    path.write_bytes(onnx_models.external(location))
    if content is not None:
        path.with_name("numbers").write_bytes(content)
    return path


def test_a_temporarily_unreadable_model_is_loaded_later(
    tmp_path: Path, loader: ModelLoader, caplog: pytest.LogCaptureFixture
) -> None:
    onnx_models.save(tmp_path, "m", onnx_models.add(1))
    contents = look(tmp_path)
    with no_descriptors():
        for _ in range(20):
            assert bring_up_to_date(loader, contents) == set()
    refusal = loader.refused["m", "1"]
    assert "Too many open files" in refusal.reason
    assert str(tmp_path) not in refusal.reason
    refusals = [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert len(refusals) == 1, "a failure that lasts is logged once"
    assert bring_up_to_date(loader, contents) == {"1"}
    assert loader.refused == {}


def test_an_unreadable_new_version_leaves_the_old_one_in_service(tmp_path: Path, loader: ModelLoader) -> None:
    onnx_models.save(tmp_path, "m", onnx_models.add(1))
    assert bring_up_to_date(loader, look(tmp_path)) == {"1"}
    onnx_models.save(tmp_path, "m", onnx_models.add(2), version=2)
    contents = look(tmp_path)
    with no_descriptors():
        assert bring_up_to_date(loader, contents) == {"1"}
    assert bring_up_to_date(loader, contents) == {"1", "2"}


def test_an_invalid_model_is_not_retried(tmp_path: Path, loader: ModelLoader) -> None:
    path = tmp_path / "m/1/model.onnx"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"no model")
    contents = look(tmp_path)
    for _ in range(3):
        assert bring_up_to_date(loader, contents) == set()
    assert loader._metrics.load_failures._value.get() == 1  # noqa: SLF001 - what /metrics tells


def test_temporarily_unreadable_external_data_is_read_later(tmp_path: Path) -> None:
    path = save_external(tmp_path, np.float32(5).tobytes())
    file = read_model(path, max_bytes=2**20, listed=None, public_key=None)
    with no_descriptors(), pytest.raises(TransientLoadError):
        Session(file, "cpu", Settings(threads=1))
    session = Session(file, "cpu", Settings(threads=1))
    assert session.run({"x": np.zeros((1, 1), np.float32)}, ["y"])["y"] == 5


@pytest.mark.parametrize("code", [errno.EIO, errno.EACCES, errno.ESTALE])
def test_an_unreadable_checksum_list_is_not_treated_as_absent(
    tmp_path: Path, code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = onnx_models.save(tmp_path, "m", onnx_models.add(1))
    (tmp_path / "SHA256SUMS").write_text(f"{sha256(path.read_bytes()).hexdigest()}  m/1/model.onnx\n")

    def fail(function: Callable[..., object]) -> Callable[..., object]:
        def failing(path: str | Path, *arguments: object, **options: object) -> object:
            if str(path).endswith("SHA256SUMS"):
                raise OSError(code, os.strerror(code), str(path))
            return function(path, *arguments, **options)

        return failing

    with monkeypatch.context() as patch:
        patch.setattr(os, "lstat", fail(os.lstat))
        patch.setattr(os, "stat", fail(os.stat))
        with pytest.raises(TransientLoadError, match=os.strerror(code)):
            read_checksums(tmp_path)
    assert list(read_checksums(tmp_path) or ()) == ["m/1/model.onnx"]


@pytest.mark.parametrize("present", [True, False], ids=["there", "missing"])
def test_external_data_of_a_listed_model_is_rejected_by_its_own_path(tmp_path: Path, present: bool) -> None:
    path = save_external(tmp_path, np.float32(5).tobytes() if present else None)
    listed = sha256(path.read_bytes()).hexdigest()
    file = read_model(path, max_bytes=2**20, listed=listed, public_key=None)
    with pytest.raises(ModelLoadError) as caught:
        Session(file, "cpu", Settings(threads=1))
    assert f"External data path {path.parent}/numbers is not read" in str(caught.value)
    assert "must be a single self-contained file" in str(caught.value)
    assert "model.onnx/" not in str(caught.value)


@pytest.mark.parametrize("location", ["numbers", "folder/numbers", "../numbers", "../../elsewhere/numbers", "/numbers"])
@pytest.mark.parametrize("listed", [True, False], ids=["listed", "not listed"])
def test_errors_do_not_reveal_paths_above_the_repository(tmp_path: Path, location: str, listed: bool) -> None:
    path = save_external(tmp_path, None, location)
    digest = sha256(path.read_bytes()).hexdigest() if listed else None
    file = read_model(path, max_bytes=2**20, listed=digest, public_key=None)
    with pytest.raises(ModelLoadError, match="External data path") as caught:
        Session(file, "cpu", Settings(threads=1))
    assert "model.onnx/" not in str(caught.value)
    assert not isinstance(caught.value, TransientLoadError)
