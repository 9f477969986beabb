"""`medserve classify` of a thousand files reports a result or an error for each."""

import io
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from medserve_proto.v1 import manifest_pb2 as pb
from samples import onnx_models
from samples.image_files import tiff
from samples.pixel_models import FATAL, seeing
from servers.server_process import ServerProcess, running_server

COUNT = 1001
SIZE = 8
INPUT = pb.ImageInput(
    height=SIZE,
    width=SIZE,
    color_space=pb.COLOR_SPACE_GRAY,
    crop=pb.CROP_NONE,
    resampling=pb.RESAMPLING_BILINEAR,
)


@pytest.fixture(scope="module")
def fragile_server(tmp_path_factory: pytest.TempPathFactory, transport: str) -> Iterator[ServerProcess]:
    """Serves a model that fails on images whose first pixel is FATAL, with small limits of message size and rows."""
    folder = tmp_path_factory.mktemp("fragile")
    onnx_models.save(folder, "fragile", seeing(INPUT, fragile=True))
    limits = ("--max-message-mib", "1", "--max-request-rows", "50")
    with running_server("--transport", transport, "--models", str(folder), *limits) as started:
        yield started


def png(first: int) -> bytes:
    pixels = np.full((SIZE, SIZE), 7, np.uint8)
    pixels[0, 0] = first
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


BAD: dict[str, tuple[bytes | None, str]] = {
    "lab": (tiff(np.zeros((SIZE, SIZE, 3), int), 8, 8), "CIE L*a*b*"),
    "associated": (tiff(np.full((SIZE, SIZE, 2), 9), 8, 1, tags={338: (3, [1])}), "transparent"),
    "cut": (png(1)[:-30], "is corrupt"),
    "text": (b"no image", "is not a PNG, JPEG, TIFF or DICOM file"),
    "empty": (b"", "is not a PNG, JPEG, TIFF or DICOM file (0 bytes)"),
    "too large": (bytes(2 << 20), ""),
    "fatal to the model": (png(FATAL), ""),
    "missing": (None, "cannot be read: No such file or directory"),
    "a dangling link": (None, "cannot be read: No such file or directory"),
    "in a file": (None, "cannot be read: Not a directory"),
}


def write_files(folder: Path) -> tuple[list[Path], dict[Path, str]]:
    """Writes files, including several of each invalid kind; returns all paths, and the errors by invalid path."""
    files, bad = [], {}
    kinds = list(BAD)
    for index in range(COUNT):
        path = folder / f"{index}.png"
        files.append(path)
        if index % 25 != 3:
            path.write_bytes(png(index % FATAL))
            continue
        kind = kinds[index // 25 % len(kinds)]
        content, error = BAD[kind]
        if content is not None:
            path.write_bytes(content)
        elif kind == "a dangling link":
            path.symlink_to(folder / "nowhere")
        elif kind == "in a file":
            path = files[-1] = files[0] / "inside.png"
        bad[path] = error
    return files, bad


def test_each_of_a_thousand_files_has_a_result_or_an_error(fragile_server: ServerProcess, tmp_path: Path) -> None:
    files, bad = write_files(tmp_path)
    command = [sys.executable, "-m", "medserve_client.cli", "--server", fragile_server.target, "--timeout", "60"]
    done = subprocess.run(
        [*command, "classify", "--json", *map(str, files)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1, done.stderr
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert [line["file"] for line in lines] == [str(file) for file in files]
    failed = {Path(line["file"]): line["error"] for line in lines if "error" in line}
    assert set(failed) == set(bad)
    for path, error in bad.items():
        assert failed[path]
        assert error in failed[path]
        assert f"{path}: {failed[path]}\n" in done.stderr
    assert "Traceback" not in done.stderr


def test_request_that_the_model_cannot_serve_stops_the_command(fragile_server: ServerProcess, tmp_path: Path) -> None:
    path = tmp_path / "one.png"
    path.write_bytes(png(1))
    command = [sys.executable, "-m", "medserve_client.cli", "--server", fragile_server.target, "classify"]
    wrong = [*command, "--occlusion", "--label", "no such label", str(path), str(path)]
    done = subprocess.run(wrong, capture_output=True, text=True, check=False)
    assert done.returncode == 4
    assert done.stderr.count("no such label") == 1
