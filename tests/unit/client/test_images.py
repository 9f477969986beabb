"""The images that `classify` accepts and rejects, and how much it reads."""

import io
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from medserve_client import AsyncClient, Client, ResourceExhaustedError
from waiting import PATIENCE

ACCEPTED = (
    r"a path \(str or os\.PathLike\), bytes, a bytearray or memoryview, a file opened in binary mode, a PIL image, "
    r"or a NumPy array of uint8"
)


@pytest.fixture
def client(clinic: str) -> Iterator[Client]:
    with Client(clinic) as client:
        yield client


# Deliberately wrong, and therefore untyped.
STRANGERS: list[Any] = [
    7,
    None,
    1.5,
    {"image": b"one"},
    {b"one"},
    object(),
    (source for source in [b"one"]),
    [7],
    [None],
    [[b"one"]],
    [(1, 2, 3)],
    [[[1, 2], [3, 4]]],
    [object()],
    range(3),
]


@pytest.mark.parametrize("stranger", STRANGERS, ids=lambda stranger: type(stranger).__name__)
async def test_other_types_are_rejected_with_the_accepted_ones(client: Client, clinic: str, stranger: Any) -> None:  # noqa: ANN401
    match = rf"images(\[0\])? is a \w+; expected {ACCEPTED}"
    with pytest.raises(TypeError, match=match):
        client.classify(stranger, "lungs")
    with pytest.raises(TypeError, match=match):
        list(client.classify_stream([stranger], "lungs"))
    async with AsyncClient(clinic) as client_:
        with pytest.raises(TypeError, match=match):
            await client_.classify(stranger, "lungs")
        with pytest.raises(TypeError, match=match):
            [one async for one in client_.classify_stream([stranger], "lungs")]


@pytest.mark.parametrize("content", [b"", b"text", b"\x89PNG\r\n\x1a\n\xff"], ids=["empty", "text", "picture"])
@pytest.mark.parametrize("wrapped", [False, True], ids=["open", "temporary file"])
def test_a_file_in_text_mode_is_rejected(client: Client, tmp_path: Path, content: bytes, wrapped: bool) -> None:
    path = tmp_path / "picture.png"
    path.write_bytes(content)
    file: Any
    with tempfile.NamedTemporaryFile("r+", encoding="utf-8") if wrapped else path.open(encoding="utf-8") as file:
        if wrapped:
            Path(file.name).write_bytes(content)
        for images in (file, [file]):
            with pytest.raises(TypeError, match=r"images\[0\] is a file opened in text mode; open it in binary mode"):
                client.classify(images, "lungs")
            file.seek(0)
    text: Any = io.StringIO("text")
    with pytest.raises(TypeError, match="text mode"):
        client.classify(text, "lungs")


def test_a_file_at_its_end_is_rejected(client: Client) -> None:
    file = io.BytesIO(b"picture")
    assert client.classify(file, "lungs").results[0].warnings[0].message == "encoded 7"
    with pytest.raises(ValueError, match=r"images\[1\] is a file object at its end; call seek\(0\)"):
        client.classify([b"one", file], "lungs")


class Endless(io.RawIOBase):
    """An endless file that counts the bytes read."""

    def __init__(self) -> None:
        self.taken = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:  # noqa: ANN401 - a buffer has no type before Python 3.12
        self.taken += len(buffer)
        return len(buffer)


@pytest.mark.parametrize("place", [0, 2])
async def test_no_more_is_read_than_fits_into_a_message(clinic: str, place: int) -> None:
    before = [bytes(400)] * place
    with Client(clinic, max_message_bytes=1000) as client:
        for call in (client.classify, lambda *args: list(client.classify_stream([args[0]], args[1]))):
            file = Endless()
            with pytest.raises(ResourceExhaustedError, match=rf"not sent: images\[{place}\] makes the request larger"):
                call([*before, file], "lungs")
            assert file.taken <= 1001 - 400 * place
    async with AsyncClient(clinic, max_message_bytes=1000) as client_:
        file = Endless()
        with pytest.raises(ResourceExhaustedError, match=rf"not sent: images\[{place}\] makes the request larger"):
            await client_.classify([*before, file], "lungs")
        assert file.taken <= 1001 - 400 * place


def test_an_endless_file_is_not_read_to_its_end(clinic: str) -> None:
    with Client(clinic, max_message_bytes=1000) as client, pytest.raises(ResourceExhaustedError, match="not sent"):
        client.classify("/dev/zero", "lungs")


def test_a_pipe_is_read_to_its_end(client: Client) -> None:
    reading, writing = os.pipe()
    with open(reading, "rb", buffering=0) as file, open(writing, "wb", buffering=0) as end:  # noqa: PTH123 - no paths

        def write() -> None:
            end.writelines((b"a", b"picture", b"in", b"parts"))
            end.close()

        thread = threading.Thread(target=write)
        thread.start()
        assert client.classify(file, "lungs").results[0].warnings[0].message == "encoded 15"
        thread.join()


def test_a_nonblocking_file_without_data_is_not_taken_for_empty(client: Client) -> None:
    reading, writing = os.pipe()
    os.set_blocking(reading, False)
    with open(reading, "rb", buffering=0) as file, open(writing, "wb", buffering=0) as end:  # noqa: PTH123 - no paths
        end.write(b"half a picture")
        with pytest.raises(TypeError, match=r"images\[0\]\.read\(\) returned a NoneType; expected bytes"):
            client.classify(file, "lungs")


@pytest.mark.parametrize(
    "single",
    ["x.png", Path("x.png"), b"one", bytearray(b"one"), io.BytesIO(b"a\nb"), np.zeros((2, 2, 3), np.uint8)],
    ids=lambda single: type(single).__name__,
)
async def test_a_single_image_is_rejected_as_batches(client: Client, clinic: str, single: Any) -> None:  # noqa: ANN401
    with pytest.raises(TypeError, match=r"batches is a single image, a \w+; expected an iterable of batches"):
        client.classify_stream(single, "lungs")
    async with AsyncClient(clinic) as client_:
        with pytest.raises(TypeError, match=r"batches is a single image, a \w+; expected an iterable of batches"):
            client_.classify_stream(single, "lungs")


@pytest.mark.parametrize("mode", ["CMYK", "YCbCr", "HSV", "LAB", "I", "F", "PA", "RGBX"])
def test_a_pil_image_of_an_unsupported_mode_is_rejected(client: Client, mode: str) -> None:
    with pytest.raises(
        ValueError, match=rf"images\[0\] is a PIL image of mode {mode}; expected one of 1, L, LA, P, RGB"
    ):
        client.classify(Image.new(mode, (2, 2)), "lungs")


@pytest.mark.parametrize(("orientation", "refused"), [(1, False), (0, False), (2, True), (6, True), (8, True)])
def test_a_pil_image_with_pending_orientation_is_rejected(
    client: Client, tmp_path: Path, orientation: int, refused: bool
) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.new("RGB", (3, 2)).save(tmp_path / "phone.jpg", exif=exif)
    with Image.open(tmp_path / "phone.jpg") as image:
        if refused:
            with pytest.raises(ValueError, match=rf"Exif orientation {orientation}, .*exif_transpose"):
                client.classify(image, "lungs")
        else:
            assert client.classify(image, "lungs").results


WITHOUT_PILLOW = """
import sys
from medserve_client import Client
with Client(sys.argv[1]) as client:
    client.classify(b"picture", "lungs")
    try:
        client.classify(7, "lungs")
    except TypeError:
        print(any(name.partition(".")[0] == "PIL" for name in sys.modules))
"""


@pytest.mark.process
def test_pillow_is_not_imported(clinic: str) -> None:
    program = [sys.executable, "-c", WITHOUT_PILLOW, clinic]
    ran = subprocess.run(program, capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert (ran.stdout, ran.stderr) == ("False\n", "")
