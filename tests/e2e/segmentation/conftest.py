"""Serves segmentation models whose outputs NumPy can compute."""

from collections.abc import Iterator

import grpc
import pytest

from medserve_proto.v1.image_segmentation_pb2_grpc import ImageSegmentationStub
from medserve_proto.v1.manifest_pb2 import CountError, Measure
from samples import onnx_models
from samples.segmentation_models import bright, manifest, spots, stretched, tiled
from servers.server_process import ServerProcess, running_server

CIRCUMFERENCE = Measure(
    name="circumference",
    kind=Measure.KIND_ELLIPSE_CIRCUMFERENCE,
    offset_px=-2,
    bias_mm=0.5,
    agreement_mm=1.5,
)
MODELS = {
    "spots": manifest(tiled(), [bright(fill_holes=False)]),
    "cells": manifest(
        tiled(),
        [
            bright(
                "cell",
                marker_distance=0.7,
                min_area_px=20,
                count_error=CountError(low_ratio=0.9, high_ratio=1.2, coverage=0.8),
            ),
            bright("gap", min_area_px=5),
        ],
        ensemble=True,
    ),
    "head": manifest(
        stretched(32, 48),
        [
            bright(
                "head",
                largest_only=True,
                fill_holes=True,
                count_error=CountError(low_ratio=1, high_ratio=1, coverage=1),
                measures=[CIRCUMFERENCE],
            )
        ],
    ),
}
"""Manifests of the served models by name."""


@pytest.fixture(scope="session")
def segmenting(tmp_path_factory: pytest.TempPathFactory, transport: str) -> Iterator[ServerProcess]:
    """Serves the models, with small limits."""
    folder = tmp_path_factory.mktemp("segmenting")
    for name, known in MODELS.items():
        onnx_models.save(folder, name, spots(known))
    onnx_models.save(folder, "identity", onnx_models.identity("FP32", ["batch", 3]))
    limits = ("--max-image-megapixels", "2", "--max-message-mib", "2")
    with running_server("--transport", transport, "--models", str(folder), *limits) as started:
        yield started


@pytest.fixture(scope="session")
def stub(segmenting: ServerProcess) -> Iterator[ImageSegmentationStub]:
    with grpc.insecure_channel(segmenting.target) as channel:
        yield ImageSegmentationStub(channel)
