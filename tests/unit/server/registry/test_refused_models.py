"""Models and settings of the repository that prevent the start of a server."""

import asyncio
import re
import shutil
from pathlib import Path

import onnx
import pytest

from medserve_server.config import Settings
from medserve_server.errors import ModelLoadError
from medserve_server.registry.control import ModelControl
from medserve_server.registry.registry import ModelRegistry
from medserve_server.telemetry.metrics import Metrics
from samples import onnx_models
from servers.server_process import REPOSITORY


def refusal(models: Path, **settings: object) -> str:
    """Returns the error of a start with the models in a folder."""
    read = Settings.model_validate({"models": models, "threads": 1, **settings})
    control = ModelControl(read, ModelRegistry(), Metrics())
    try:
        with pytest.raises(ModelLoadError) as caught:
            asyncio.run(control.start())
    finally:
        control.close()
    return str(caught.value)


def one_model(folder: Path) -> Path:
    shutil.copytree(REPOSITORY / "models/chest-xray", folder / "chest-xray")
    return folder / "chest-xray/1/model.onnx"


@pytest.mark.parametrize("damage", ["cut", "text", "empty"])
def test_corrupt_model_is_reported(tmp_path: Path, damage: str) -> None:
    path = one_model(tmp_path)
    whole = path.read_bytes()
    path.write_bytes({"cut": whole[: len(whole) // 2], "text": b"no model", "empty": b""}[damage])
    assert f"{path}: " in refusal(tmp_path)


def test_link_out_of_the_repository_is_refused(tmp_path: Path) -> None:
    target = one_model(tmp_path / "elsewhere")
    link = tmp_path / "models/chest-xray/1/model.onnx"
    link.parent.mkdir(parents=True)
    link.symlink_to(target)
    assert "it is a link that points outside the repository" in refusal(tmp_path / "models")


@pytest.mark.parametrize(
    ("old", "new", "text"),
    [
        ('"schema_version":1', '"schema_version":7', "schema_version is 7, this server supports 1"),
        ('"normal"', '"normal","normal"', "a label occurs twice"),
        ('"sensitivity-0.95"', '"sensitivity-0.5"', ""),
        ('"height":28', '"height":32', "input image is UINT8 [-1, 28, 28, 1] in the graph and UINT8 [-1, 32, 28, 1]"),
        ('"labels"', '"label"', 'has no field named "label"'),
    ],
)
def test_manifest_that_contradicts_its_graph_is_refused(tmp_path: Path, old: str, new: str, text: str) -> None:
    path = one_model(tmp_path)
    model = onnx.load(path)
    (entry,) = [entry for entry in model.metadata_props if entry.key == "medserve.manifest"]
    compact = re.sub(r'("|\d|\]|\}|\{|\[|,)\s*(:|,)\s*', r"\1\2", entry.value)
    assert old in compact
    entry.value = compact.replace(old, new, 1)
    onnx.save(model, path)
    error = refusal(tmp_path)
    assert error.startswith(f"{path}: ")
    assert text in error


def test_unavailable_cuda_is_an_error(tmp_path: Path) -> None:
    onnx_models.save(tmp_path, "a", onnx_models.add(1))
    error = refusal(tmp_path, provider="cuda")
    assert "CUDAExecutionProvider" in error
    assert "--allow-fallback" in error


@pytest.mark.parametrize("file", ["nowhere.pem", "README.md"])
def test_unreadable_public_key_is_an_error(tmp_path: Path, file: str) -> None:
    key = REPOSITORY / file
    with pytest.raises(ModelLoadError, match=f"--require-signed {key}: "):
        ModelControl(Settings(models=tmp_path, require_signed=key), ModelRegistry(), Metrics())
