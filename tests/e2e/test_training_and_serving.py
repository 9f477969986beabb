"""Training and the live server see the same pixels of the same file, or refuse it for the same reason."""

import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from image_corpus import Case, corpus
from medserve_client import Client, ImageReasons, InvalidArgumentError
from medserve_proto.v1 import manifest_pb2 as pb
from medserve_training.data.image_data import load_images
from medserve_training.errors import UserError
from medserve_training.recipes.recipe import ImageTask, load_recipe
from samples import onnx_models
from samples.pixel_models import seeing
from servers.server_process import ServerProcess, running_server

LABELS = ("normal", "pneumonia")
# Smaller than the corpus' images and of another shape, so that they are cropped or stretched, and resampled.
HEIGHT, WIDTH = 14, 16
INPUTS = {
    "gray": pb.ImageInput(
        height=HEIGHT,
        width=WIDTH,
        color_space=pb.COLOR_SPACE_GRAY,
        crop=pb.CROP_CENTER,
        resampling=pb.RESAMPLING_BICUBIC,
    ),
    "rgb": pb.ImageInput(
        height=HEIGHT,
        width=WIDTH,
        color_space=pb.COLOR_SPACE_RGB,
        crop=pb.CROP_NONE,
        resampling=pb.RESAMPLING_BILINEAR,
    ),
}
TASKS = {
    "gray": ["task.crop=center", "task.resampling=bicubic"],
    "rgb": ["task.crop=none", "task.resampling=bilinear"],
}
CASES = {case.name: case for case in corpus()}


@pytest.fixture(scope="module")
def seeing_server(tmp_path_factory: pytest.TempPathFactory, transport: str) -> Iterator[ServerProcess]:
    folder = tmp_path_factory.mktemp("seeing")
    for color, image in INPUTS.items():
        onnx_models.save(folder, f"seeing-{color}", seeing(image))
    with running_server("--transport", transport, "--models", str(folder)) as started:
        yield started


def served(server: ServerProcess, color: str) -> dict[str, bytes | str]:
    """Of each file the pixels that reach the graph, or why it is refused."""
    found: dict[str, bytes | str] = {}
    reasons = ImageReasons(feature_maps=["pixels"])
    with Client(server.target, timeout=60) as client:
        for start in range(0, len(CASES), 100):
            part = list(CASES)[start : start + 100]
            while not found.keys() >= set(part):
                left = [name for name in part if name not in found]
                try:
                    images = [CASES[name].data for name in left]
                    results = client.classify(images, f"seeing-{color}", reasons=reasons, preview=True).results
                except InvalidArgumentError as error:  # not all fit into one error
                    found |= {left[item]: description for item, description in _refused(error).items()}
                    continue
                for name, result in zip(left, results, strict=True):
                    (maps,) = result.feature_maps
                    found[name] = maps.values.transpose(1, 2, 0).astype(np.uint8).tobytes()
                    assert Image.open(io.BytesIO(result.preview_png)).tobytes() == found[name]
    return found


def _refused(error: InvalidArgumentError) -> dict[int, str]:
    """By the place of an image, why it is refused."""
    found = {violation.item: violation.description for violation in error.violations if violation.item is not None}
    assert [violation.field for violation in error.violations] == [f"images[{item}].encoded" for item in found]
    assert found
    return found


def load(folder: Path, color: str) -> dict[bytes, int]:
    """The pixels that training sees, and their classes."""
    overrides = [f"task.height={HEIGHT}", f"task.width={WIDTH}", f"task.color={color}", *TASKS[color]]
    recipe = load_recipe("chest-xray", overrides, data=f"folder:{folder}")
    assert isinstance(recipe.task, ImageTask)
    parts = load_images(recipe, recipe.task, Path())
    return {
        image.tobytes(): int(label)
        for part in (parts.train, parts.validation, parts.test)
        for image, label in zip(part.pixels, part.labels, strict=True)
    }


def write(folder: Path, label: str, case: Case) -> Path:
    path = folder / label / case.name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(case.data)
    return path


@pytest.mark.parametrize("color", INPUTS)
def test_training_sees_what_the_server_sees(seeing_server: ServerProcess, color: str, tmp_path: Path) -> None:
    answers = served(seeing_server, color)
    assert {name for name, answer in answers.items() if isinstance(answer, str)} == {
        name for name, case in CASES.items() if case.pixels is None
    }
    expected: dict[bytes, int] = {}
    for index, (name, answer) in enumerate(answers.items()):
        if isinstance(answer, bytes):
            assert answer not in expected, f"{name} holds the image of another file"
            expected[answer] = index % 2
            write(tmp_path / "read", LABELS[index % 2], CASES[name])
    assert load(tmp_path / "read", color) == expected
    for name, answer in answers.items():
        if isinstance(answer, str):
            folder = tmp_path / "refused" / name
            path = write(folder, "normal", CASES[name])
            write(folder, "pneumonia", CASES[name])
            with pytest.raises(UserError) as caught:
                load(folder, color)
            assert str(caught.value) == f"{path}: {answer}"
