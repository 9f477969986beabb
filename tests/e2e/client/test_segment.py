"""Client.segment and `medserve segment` with the real server: every number is that of the squares in the picture."""

import csv
import io
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from medserve_client import (
    Client,
    Images,
    ImageWarningKind,
    InvalidArgumentError,
    MaskFormat,
    PixelSpacing,
    RunLength,
    SegmentationResponse,
    SpacingSource,
)
from medserve_client.cli import main
from samples import onnx_models
from samples.dicom_files import dicom
from samples.segmentation_models import bright, manifest, spots, tiled
from servers.server_process import ServerProcess, running_server

HEIGHT, WIDTH = 70, 100
SQUARES = [(5, 10, 20), (40, 60, 10), (64, 94, 6)]
"""Top, left and side, largest first; the last touches two borders."""
MASK = np.zeros((HEIGHT, WIDTH), np.int32)
for number, (top, left, side) in enumerate(SQUARES, 1):
    MASK[top : top + side, left : left + side] = number
PIXELS = np.where(MASK > 0, 230, 20).astype(np.uint8)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """One transport suffices, since these tests are about the client."""
    folder = tmp_path_factory.mktemp("models")
    task = manifest(
        tiled(), [bright(count_error={"low_ratio": 0.5, "high_ratio": 2.0, "coverage": 0.9})], ensemble=True
    )
    onnx_models.save(folder, "spots", spots(task))
    task.image_segmentation.input.tiling.max_side = 256
    onnx_models.save(folder, "large-tiles", spots(task))
    with running_server("--transport", "grpcio", "--models", str(folder)) as started:
        yield started


@pytest.fixture
def client(server: ServerProcess) -> Iterator[Client]:
    with Client(server.target) as client:
        yield client


@pytest.fixture
def picture() -> bytes:
    file = io.BytesIO()
    Image.fromarray(PIXELS).save(file, "PNG")
    return file.getvalue()


def test_masks_counts_and_sizes_are_those_of_the_picture(client: Client, picture: bytes) -> None:
    (result,) = client.segment(picture, "spots", pixel_spacing=(0.5, 0.25), contours=True).results
    assert (result.height, result.width, result.tiles) == (HEIGHT, WIDTH, 4)
    assert result.pixel_spacing == PixelSpacing(0.5, 0.25, SpacingSource.REQUEST)
    assert [one.kind for one in result.warnings] == [ImageWarningKind.TILED]
    np.testing.assert_array_equal(result.mask("spot"), MASK)
    (spot,) = result.labels
    assert (spot.count, spot.area_px) == (3, 536)
    assert spot.area_mm2 == pytest.approx(536 / 8)
    assert spot.count_interval is not None
    assert (spot.count_interval.low, spot.count_interval.high, spot.count_interval.coverage) == (1, 6, 0.9)
    for one, (top, left, side) in zip(spot.objects, SQUARES, strict=True):
        assert (one.box.top, one.box.left, one.box.height, one.box.width) == (top, left, side, side)
        assert one.centroid == pytest.approx((left + side / 2, top + side / 2))
        assert one.area == pytest.approx(side**2 / 8)
        assert one.mean_probability == pytest.approx(230 / 255, abs=1e-4)
        assert one.touches_border == (side == 6)
        assert one.contour is not None
        corners = {(left, top), (left + side, top), (left + side, top + side), (left, top + side)}
        assert set(map(tuple, one.contour.tolist())) == corners
        assert one.run_length is not None
        np.testing.assert_array_equal(one.run_length.mask(), one.id == MASK)


def test_the_mask_file_has_the_same_objects(client: Client) -> None:
    (result,) = client.segment(PIXELS, "spots", masks=MaskFormat.PNG, max_objects=1).results
    assert len(result.labels[0].objects) == 1
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(result.labels[0].mask_png))), MASK)


def test_streams_preserve_order(client: Client, picture: bytes) -> None:
    batches: list[Images] = [PIXELS, b"not an image", [picture, PIXELS.T.copy()]]
    first, bad, last = client.segment_stream(batches, "spots")
    assert isinstance(first, SegmentationResponse)
    assert isinstance(bad, InvalidArgumentError)
    assert bad.violations[0].item == 0
    assert isinstance(last, SegmentationResponse)
    np.testing.assert_array_equal(last.results[1].mask("spot") > 0, MASK.T > 0)


def test_the_command_writes_objects_annotations_and_overlays(
    server: ServerProcess, tmp_path: Path, picture: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    slides, objects, coco, seen = (tmp_path / name for name in ("slides", "objects.csv", "coco.json", "seen"))
    slides.mkdir()
    (slides / "a.png").write_bytes(picture)
    (slides / "b.dcm").write_bytes(dicom(PIXELS, PixelSpacing=[2, 3]))
    (slides / "c.png").write_bytes(b"not an image")
    command = ["--server", server.target, "segment", "--model", "spots", str(slides)]
    assert main([*command, "--objects", str(objects), "--coco", str(coco), "--overlay", str(seen)]) == 1
    captured = capsys.readouterr()
    assert f"{slides}/c.png: is not a PNG, JPEG, TIFF or DICOM file" in captured.err
    for words in ("3 (1 to 6)", "536 px", "3,216 mm²", "7.7%", "sizes are in pixels"):
        assert words in captured.out
    with objects.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(Path(row["file"]).name, row["area"], row["unit"]) for row in rows] == [
        *(("a.png", str(side**2), "px") for _, _, side in SQUARES),
        *(("b.dcm", str(6 * side**2), "mm") for _, _, side in SQUARES),
    ]
    document = json.loads(coco.read_text())
    found = np.zeros((HEIGHT, WIDTH), np.int32)
    for one in document["annotations"][3:]:
        found[RunLength(one["segmentation"]["counts"], *one["segmentation"]["size"]).mask()] = one["id"] - 3
    np.testing.assert_array_equal(found, MASK)
    assert sorted(path.name for path in seen.iterdir()) == ["a.overlay.png", "b.overlay.png"]
    with Image.open(seen / "a.overlay.png") as overlay:
        assert overlay.size == (WIDTH, HEIGHT)


def test_a_spacing_that_contradicts_a_file_is_refused(
    server: ServerProcess, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "scan.dcm"
    path.write_bytes(dicom(PIXELS, PixelSpacing=[2, 3]))
    command = ["--server", server.target, "segment", "--model", "spots", str(path)]
    assert main([*command, "--pixel-spacing", "2,4"]) == 1
    assert f"{path}: is 4, but the file states 3 mm" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("protocol", "model"), [(["--mode", "stream"], "spots"), (["--http", "binary"], "large-tiles")]
)
def test_segmentation_is_load_tested(server: ServerProcess, tmp_path: Path, protocol: list[str], model: str) -> None:
    path = tmp_path / "run.json"
    target = server.http_url.removeprefix("http://") if "--http" in protocol else server.target
    load = ["--model", model, *protocol, "--rate", "20", "--duration", "0.5", "--warmup", "0.1"]
    metrics = ["--metrics-url", server.metrics_url]
    assert main(["--server", target, "loadtest", *load, *metrics, "--json", str(path)]) == 0
    (run,) = json.loads(path.read_text())["runs"]
    assert run["errors"] == {}
    assert run["sent"] > 0
