"""The folder of a model repository."""

from pathlib import Path

import pytest

from servers.model_folder import ModelFolder


@pytest.fixture
def folder(tmp_path: Path) -> ModelFolder:
    return ModelFolder(tmp_path / "models")
