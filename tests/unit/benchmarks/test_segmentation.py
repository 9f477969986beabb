"""The benchmark of segmentation."""

import shutil
from pathlib import Path

import pytest
from benchmarks import segmentation

from samples import onnx_models
from samples.segmentation_models import bright, manifest, spots, tiled
from servers.server_process import REPOSITORY


@pytest.mark.process
def test_every_figure_is_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for constant, value in {"ROUNDS": 1, "QUIET_SECONDS": 0.1, "TILES": 4, "LARGE_SIDE": 150, "HUGE_SIDE": 300}.items():
        monkeypatch.setattr(segmentation, constant, value)
    onnx_models.save(tmp_path, "spots", spots(manifest(tiled(), [bright()])))
    shutil.copytree(REPOSITORY / "models/chest-xray", tmp_path / "chest-xray")
    found = dict(segmentation.figures(tmp_path, "spots", "chest-xray", "grpcio"))
    assert len(found) == 7
    assert all(float(value.split()[0]) >= 0 for value in found.values())
