from pathlib import Path

import numpy as np

from medserve_proto.v1.manifest_pb2 import SegmentationInput
from medserve_training.export.inference import open_session
from medserve_training.export.manifest import read_manifest
from medserve_training.export.segmentation.maps import predict_maps

MODEL = Path(__file__).parents[3] / "models/cell-nuclei/1/model.onnx"


def test_the_packaged_model_computes_the_same_in_tiles_as_for_the_whole_image() -> None:
    random = np.random.default_rng(0)
    rows, columns = np.indices((600, 40))
    disks = ((rows % 30 - 15) ** 2 + (columns % 20 - 10) ** 2 < 64) * 120 + random.integers(0, 80, rows.shape)
    pixels = np.stack([disks] * 3, axis=2).astype(np.uint8)
    size, whole = read_manifest(MODEL).image_segmentation.input, SegmentationInput()
    whole.CopyFrom(size)
    whole.tiling.max_side = 1024
    session = open_session(MODEL)
    tiled, expected = (predict_maps(session, pixels, chosen) for chosen in (size, whole))
    assert np.ptp(expected["probabilities"]) > 0.9
    for name in ("probabilities", "distance", "disagreement"):
        np.testing.assert_allclose(tiled[name], expected[name], atol=1e-5)
