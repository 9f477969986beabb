"""Loading a segmentation model: its runs are bounded in pixels, and it needs an extra of the server."""

import sys
from pathlib import Path

import pytest

from medserve_server.config import Settings
from medserve_server.engine.model import Model
from medserve_server.errors import ModelLoadError
from medserve_server.registry.integrity import read_model
from medserve_server.telemetry.metrics import Metrics
from samples import onnx_models
from samples.segmentation_models import bright, manifest, spots, tiled


def loaded(folder: Path, max_side: int, **settings: float) -> Model:
    made = manifest(tiled(), [bright()])
    made.image_segmentation.input.tiling.max_side = max_side
    path = onnx_models.save(folder, "spots", spots(made))
    file = read_model(path, max_bytes=2**24, listed=None, public_key=None)
    return Model("spots", "1", file, Settings.model_validate(settings), Metrics())


@pytest.mark.parametrize(("max_side", "rows"), [(64, 16), (128, 4), (256, 1), (1024, 1)])
def test_a_run_has_at_most_as_many_pixels_as_a_tile_of_256_x_256_or_a_single_larger_one(
    tmp_path: Path, max_side: int, rows: int
) -> None:
    model = loaded(tmp_path, max_side)
    assert model.max_batch_rows == rows
    model.close()


def test_a_model_whose_tiles_exceed_the_limits_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelLoadError) as caught:
        loaded(tmp_path, 1024, max_image_megapixels=0.5, max_message_mib=1)
    assert "a row of probabilities has 4194304 bytes; --max-message-mib and --max-image-megapixels allow" in str(
        caught.value
    )


def test_a_server_without_the_extra_refuses_the_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "medserve_masks", None)  # as if scikit-image were not installed
    with pytest.raises(ModelLoadError) as caught:
        loaded(tmp_path, 64)
    assert "which requires the extra segmentation (pip install '.[segmentation]'" in str(caught.value)


def test_a_model_that_fails_on_a_tile_is_refused(tmp_path: Path) -> None:
    made = manifest(tiled(), [bright()])
    graph = spots(made)
    (blur,) = [node for node in graph.graph.node if node.op_type == "AveragePool"]
    kernel = next(attribute for attribute in blur.attribute if attribute.name == "kernel_shape")
    kernel.ints[:] = [200, 200]  # larger than a tile
    path = onnx_models.save(tmp_path, "spots", graph)
    with pytest.raises(ModelLoadError) as caught:
        Model("spots", "1", read_model(path, max_bytes=2**24, listed=None, public_key=None), Settings(), Metrics())
    assert "the model fails on zeros" in str(caught.value)
