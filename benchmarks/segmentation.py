"""Measures image segmentation with a real server, as multiples of what ONNX Runtime alone needs for the same tiles.

`python -m benchmarks.segmentation` prints a table: the rate of single tiles, the time of a large image and of finding
its objects, the server's memory for it, and the latency of small requests to another model meanwhile. Images show
disks, of which most touch others.
"""

import argparse
import io
import math
import socket
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import grpc
import numpy as np
import onnxruntime
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from benchmarks.processes import marked_processes, running
from benchmarks.servers import ROOT
from medserve_client import Client, HealthStatus, InferenceError
from medserve_images import FileInfo
from medserve_proto.v1 import image_classification_pb2 as image_pb
from medserve_proto.v1 import image_segmentation_pb2 as pb
from medserve_proto.v1.image_segmentation_pb2_grpc import ImageSegmentationStub
from medserve_proto.v1.manifest_pb2 import ImageSegmentationTask
from medserve_server.cpus import available_cpus
from medserve_server.engine.manifest.segmentation import input_shape
from medserve_server.engine.model_input import rows_per_run
from medserve_server.engine.work import Arrays
from medserve_server.segment.image import SegmentedImage
from medserve_server.segment.result import add_result

ROUNDS = 5
CLIENTS = 8
QUIET_SECONDS = 10
TILES = 64
LARGE_SIDE, HUGE_SIDE = 2000, 4000
"""Height and width of the images in pixels."""
Pixels = NDArray[np.uint8]


def disks(side: int) -> Pixels:
    """Returns a square image of bright disks on a dark background, [side, side, 3]."""
    random = np.random.default_rng(0)
    picture = Image.new("RGB", (side, side), (20, 20, 25))
    pen = ImageDraw.Draw(picture)
    for x, y, radius in random.integers((0, 0, 6), (side, side, 18), (side * side // 1600, 3)):
        shade = int(random.integers(120, 220))
        pen.ellipse((x - radius, y - radius, x + radius, y + radius), fill=(shade, shade, shade), outline=(70, 70, 70))
    return np.asarray(picture)


class Alone:
    """ONNX Runtime with the server's options, in this process."""

    def __init__(self, path: Path, task: ImageSegmentationTask) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = available_cpus()
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self._session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        self._names = [output.name for output in self._session.get_outputs()]
        self.tile = input_shape(task)
        self.rows = rows_per_run(self.tile, "cpu")

    def run(self, rows: Pixels) -> Arrays:
        """Returns all outputs for a batch, uint8 [rows, height, width, channels]."""
        return dict(zip(self._names, self._session.run(self._names, {"image": rows}), strict=True))

    def seconds(self, tiles: int) -> float:
        """Returns the time for this many tiles, in batches as in the server."""
        batch = np.broadcast_to(disks(self.tile[0])[None, ..., : self.tile[2]], (self.rows, *self.tile)).copy()
        return _seconds(lambda: self.run(batch)) * math.ceil(tiles / self.rows)


def post_processing(alone: Alone, task: ImageSegmentationTask, pixels: Pixels) -> float:
    """Returns the seconds for finding, measuring and encoding the objects of an image."""
    image = SegmentedImage(pixels[..., : alone.tile[2]], FileInfo(), None, task)
    for start in range(0, len(image.plan), alone.rows):
        image.add(alone.run(image.inputs(start, alone.rows)))
    maps = dict(image.maps)

    def find() -> None:
        image.maps = dict(maps)
        add_result(pb.SegmentResult(), pb.SegmentRequest(masks=pb.MASK_FORMAT_PNG), task, image)

    return _seconds(find)


def latencies(client: Client, model: str, done: Callable[[], bool]) -> NDArray[np.float64]:
    """Sends small requests one after the other until `done` returns True.

    Returns:
        The start and the duration of each in seconds, [requests, 2].
    """
    size = client.describe(model).manifest.image_classification.input
    shape = (size.height, size.width) if size.color_space == 1 else (size.height, size.width, 3)
    small, took = np.zeros(shape, np.uint8), list[tuple[float, float]]()
    while not done():
        start = time.perf_counter()
        client.classify(small, model)
        took.append((start, time.perf_counter() - start))
        time.sleep(0.002)
    return np.array(took)


def figures(models: Path, model: str, other: str, transport: str) -> Iterator[tuple[str, str]]:
    """Yields the name and the value of each figure of a model."""
    with (
        _server(models, transport) as (target, mark),
        Client(target) as client,
        grpc.insecure_channel(target, [("grpc.max_receive_message_length", -1)]) as channel,
        ThreadPoolExecutor(CLIENTS) as pool,
    ):
        task = client.describe(model).manifest.image_segmentation
        segment = partial(_segment, ImageSegmentationStub(channel), model)
        idle = _peak_mib(mark)
        huge = pool.submit(segment, disks(HUGE_SIDE))
        busy = latencies(client, other, huge.done)
        answered = time.perf_counter()
        tiles = huge.result().tiles
        size = f"{HUGE_SIDE:,} x {HUGE_SIDE:,}, {tiles} tiles"
        yield f"{size}: peak memory above idle", f"{_peak_mib(mark) - idle:.0f} MiB"
        end = time.monotonic() + QUIET_SECONDS
        quiet = latencies(client, other, lambda: time.monotonic() > end)
        alone = Alone(models / model / "1" / "model.onnx", task)
        tile, count = disks(alone.tile[0]), TILES
        took_tiles = _seconds(lambda: list(pool.map(segment, [tile] * count)))
        yield "rate of single tiles", f"{alone.seconds(count) / took_tiles:.2f} times alone"
        large = disks(LARGE_SIDE)
        inference = alone.seconds(segment(large).tiles)
        yield f"{LARGE_SIDE:,} x {LARGE_SIDE:,}", f"{_seconds(lambda: segment(large)) / inference:.2f} times alone"
        found = post_processing(alone, task, large)
        yield "finding its objects", f"{found / inference:.2f} times alone"
        finding = busy[:, 0] > answered - found * (HUGE_SIDE / LARGE_SIDE) ** 2
        for name, took in (("idle", quiet), ("tiles", busy[~finding]), ("finding objects", busy[finding])):
            value = f"{1e3 * float(np.quantile(took[:, 1], 0.99)):.2f} ms" if len(took) else "no requests"
            yield f"99th percentile of {other}, {name}", value


def _segment(stub: ImageSegmentationStub, model: str, pixels: Pixels) -> pb.SegmentResult:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG", compress_level=1)
    image = pb.ImageToSegment(image=image_pb.Image(encoded=file.getvalue()))
    return stub.Segment(pb.SegmentRequest(model_name=model, images=[image], masks=pb.MASK_FORMAT_PNG)).results[0]


def _seconds(function: Callable[[], object]) -> float:
    """Returns the median duration of a call."""
    took = []
    for _ in range(ROUNDS):
        start = time.perf_counter()
        function()
        took.append(time.perf_counter() - start)
    return statistics.median(took)


def _peak_mib(mark: str) -> float:
    """Returns the largest total memory so far of the processes with this mark."""
    statuses = [Path(f"/proc/{pid}/status").read_text() for pid in marked_processes(mark)]
    lines = [line for status in statuses for line in status.splitlines() if line.startswith("VmHWM:")]
    return sum(int(line.split()[1]) for line in lines) / 1024


@contextmanager
def _server(models: Path, transport: str) -> Iterator[tuple[str, str]]:
    """Serves a model repository; yields its address and the mark of its processes."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    target = f"127.0.0.1:{port}"
    program = str(Path(sys.executable).parent / "medserve-server")
    flags = ("--models", str(models), "--port", str(port), "--http-port", "0", "--metrics-port", "0")

    def ready() -> bool:
        try:
            with Client(target, timeout=1) as client:
                return client.health() is HealthStatus.SERVING
        except InferenceError:
            return False

    with (
        tempfile.TemporaryDirectory() as folder,
        running((program, *flags, "--transport", transport), {}, Path(folder) / "log", ready, 60) as started,
    ):
        yield target, started.mark


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", type=Path, default=ROOT / "models")
    parser.add_argument("--model", default="cell-nuclei", help="segmentation model in version 1")
    parser.add_argument("--other", default="chest-xray", help="image classification model for the small requests")
    given = parser.parse_args()
    rows = ["| figure | value |", "| --- | --- |"]
    for kind in ("envoy", "grpcio"):
        found = figures(given.models.resolve(), given.model, given.other, kind)
        rows += [f"| {kind}: {name} | {value} |" for name, value in found]
    print("\n".join(rows))  # noqa: T201 - output of the command
