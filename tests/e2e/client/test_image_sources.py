"""Images in every supported Python type give the same results as their file, alone and in lists."""

import io
import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from medserve_client import AsyncClient, ClassificationResponse, Client, ImageSource, InferenceError
from servers.server_process import ServerProcess

GRAY = Image.fromarray(np.random.default_rng(0).integers(0, 256, (28, 28), dtype=np.uint8))


def png() -> bytes:
    file = io.BytesIO()
    GRAY.save(file, "PNG")
    return file.getvalue()


PNG = png()
Form = Callable[[bytes, Path, ExitStack], ImageSource]


def from_the_middle(content: bytes) -> io.BytesIO:
    file = io.BytesIO(b"what came before" + content)
    file.seek(len(b"what came before"))
    return file


def temporary(content: bytes, stack: ExitStack) -> ImageSource:
    file = stack.enter_context(tempfile.NamedTemporaryFile())  # noqa: SIM115 - entered by the stack
    file.write(content)
    file.seek(0)
    return file


# Each is called for every request, since a file object can be read only once.
FORMS: dict[str, Form] = {
    "str": lambda _, path, __: str(path),
    "Path": lambda _, path, __: path,
    "bytes": lambda content, _, __: content,
    "bytearray": lambda content, _, __: bytearray(content),
    "memoryview": lambda content, _, __: memoryview(content),
    "file": lambda _, path, stack: stack.enter_context(path.open("rb")),
    "unbuffered file": lambda _, path, stack: stack.enter_context(path.open("rb", buffering=0)),
    "temporary file": lambda content, _, stack: temporary(content, stack),
    "BytesIO": lambda content, _, __: io.BytesIO(content),
    "BytesIO from the middle": lambda content, _, __: from_the_middle(content),
    "PIL image": lambda content, _, __: Image.open(io.BytesIO(content)),
    "array": lambda content, _, __: np.asarray(Image.open(io.BytesIO(content))),
}


@pytest.fixture(params=FORMS)
def form(request: pytest.FixtureRequest) -> Form:
    return FORMS[request.param]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "xray.png"
    path.write_bytes(PNG)
    return path


def results(outcomes: Sequence[ClassificationResponse | InferenceError]) -> list[Any]:
    return [result for outcome in outcomes if not isinstance(outcome, InferenceError) for result in outcome.results]


async def test_every_source_type_gives_the_results_of_the_file(server: ServerProcess, form: Form, path: Path) -> None:
    with ExitStack() as stack, Client(server.target) as client:

        def source() -> ImageSource:
            return form(PNG, path, stack)

        expected = client.classify([PNG] * 3, "chest-xray").results
        assert client.classify(source(), "chest-xray").results == expected[:1]
        assert client.classify([source(), PNG, source()], "chest-xray").results == expected
        assert client.classify((source(), source()), "chest-xray").results == expected[:2]
        batches = [source(), [source(), source()]]
        assert results(list(client.classify_stream(batches, "chest-xray"))) == list(expected)
        async with AsyncClient(server.target) as client_:
            assert (await client_.classify(source(), "chest-xray")).results == expected[:1]
            assert (await client_.classify([source()] * 1, "chest-xray")).results == expected[:1]
            batches = [source(), [source(), source()]]
            outcomes = [outcome async for outcome in client_.classify_stream(batches, "chest-xray")]
            assert results(outcomes) == list(expected)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "I;16"])
def test_pil_image_gives_the_results_of_its_file(server: ServerProcess, tmp_path: Path, mode: str) -> None:
    file = tmp_path / "image.png"
    if mode == "I;16":
        Image.fromarray(np.asarray(GRAY).astype(np.uint16) * 200).save(file)
    else:
        GRAY.convert("RGBA" if mode in {"LA", "RGBA"} else "RGB").convert(mode).save(file)
    with Client(server.target) as client, Image.open(file) as image:
        assert image.mode == mode
        first, second = client.classify([file, image], "chest-xray").results
    assert first == second
