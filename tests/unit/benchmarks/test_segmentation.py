"""The benchmark of segmentation."""

from pathlib import Path

from benchmarks.segmentation import Alone, disks, post_processing

from samples import onnx_models
from samples.segmentation_models import bright, manifest, spots, tiled


def test_tiles_and_objects_are_timed_without_a_server(tmp_path: Path) -> None:
    known = manifest(tiled(), [bright()])
    task = known.image_segmentation
    alone = Alone(onnx_models.save(tmp_path, "spots", spots(known)), task)
    assert (alone.tile, alone.rows) == ((64, 64, 1), 16)
    assert alone.seconds(16) > 0
    assert post_processing(alone, task, disks(150)) > 0
