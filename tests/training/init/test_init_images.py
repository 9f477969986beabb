"""`medserve-train init FOLDER`: the recipe loads and reads the images, or an error explains the problem."""

import os
import struct
import zlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from medserve_training.commands.cli import main
from medserve_training.data.image_data import load_images
from medserve_training.init.images import start_images
from medserve_training.recipes.recipe import ImageTask, Recipe, load_recipe
from medserve_training.recipes.strict_toml import build, parse_toml

Size = tuple[int, int]


def write_images(folder: Path, mode: str, size: Size, suffix: str = ".png", count: int = 10) -> None:
    folder.mkdir(parents=True)
    random = np.random.default_rng(len(folder.name))
    for index in range(count):
        shape = (size[1], size[0], 3) if mode == "RGB" else (size[1], size[0])
        pixels = random.integers(0, 256, shape, dtype=np.uint8)
        Image.fromarray(pixels).convert(mode).save(folder / f"{index}{suffix}")


def start(folder: Path) -> tuple[Recipe, ImageTask]:
    assert main(["init", str(folder)]) == 0
    recipe = load_recipe(str(folder.with_name(f"{folder.name}.recipe.toml")))
    assert isinstance(recipe.task, ImageTask)
    return recipe, recipe.task


@pytest.mark.parametrize("place", ["scans", "./scans/", "absolute"])
def test_written_files_are_named_relative_to_the_working_directory(
    tmp_path: Path, place: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for label in ("one", "two"):
        write_images(tmp_path / "scans" / label, "L", (28, 28))
    monkeypatch.chdir(tmp_path)
    assert main(["init", str(tmp_path / "scans") if place == "absolute" else place]) == 0
    first, *_, last = capsys.readouterr().out.splitlines()
    assert first.startswith("scans.recipe.toml: check its ")
    assert last == "Then train with: medserve-train fit scans.recipe.toml"


@pytest.mark.parametrize(
    ("mode", "suffix", "size", "color", "side"),
    [
        ("L", ".png", (200, 100), "gray", 64),
        ("L", ".jpg", (40, 40), "gray", 40),
        ("RGB", ".png", (32, 48), "rgb", 32),
        ("RGB", ".jpg", (8, 8), "rgb", 28),
        ("P", ".png", (30, 30), "gray", 30),
        ("1", ".tif", (300, 300), "gray", 64),
        ("CMYK", ".jpg", (64, 64), "gray", 64),
    ],
)
def test_color_and_size_come_from_the_files(
    tmp_path: Path, mode: str, suffix: str, size: Size, color: str, side: int
) -> None:
    for label in ("a", "b"):
        write_images(tmp_path / "scans" / label, mode, size, suffix)
    recipe, task = start(tmp_path / "scans")
    assert (task.color, task.height, task.width) == (color, side, side)
    data = load_images(recipe, task, tmp_path)
    assert data.train.pixels.shape[1:] == (side, side, task.channels)


def test_gray_images_stored_as_rgb_are_gray(tmp_path: Path) -> None:
    for label in ("a", "b"):
        (tmp_path / "scans" / label).mkdir(parents=True)
        for index in range(3):
            ramp = Image.linear_gradient("L").rotate(90 * index).convert("RGB")
            ramp.save(tmp_path / "scans" / label / f"{index}.jpg")
    assert start(tmp_path / "scans")[1].color == "gray"


@pytest.mark.parametrize(
    ("names", "labels"),
    [
        (["pneumonia", "normal"], ("normal", "pneumonia")),
        (["healthy", "adenoma"], ("healthy", "adenoma")),
        (["tumor", "no tumor"], ("no tumor", "tumor")),
        (["1", "0"], ("0", "1")),
        (["cat", "dog"], ("cat", "dog")),
        (["c", "a", "b"], ("a", "b", "c")),
        (['"quoted"', "a\nb\\'#=\u00e9"], ('"quoted"', "a\nb\\'#=\u00e9")),
    ],
)
def test_the_positive_label_is_the_second(tmp_path: Path, names: list[str], labels: tuple[str, ...]) -> None:
    for name in names:
        write_images(tmp_path / "scans" / name, "L", (28, 28), count=1)
    assert start(tmp_path / "scans")[1].labels == labels


def test_files_that_pillow_does_not_know_leave_a_marked_guess(tmp_path: Path) -> None:
    for label in ("a", "b"):
        (tmp_path / "scans" / label).mkdir(parents=True)
        (tmp_path / "scans" / label / "1.dcm").write_bytes(b"\0" * 128 + b"DICM")
    task = start(tmp_path / "scans")[1]
    assert (task.color, task.height) == ("gray", 64)
    lines = (tmp_path / "scans.recipe.toml").read_text(encoding="utf-8").splitlines()
    assert lines[lines.index('color = "gray"') - 1] == "# guess: none of 2 sampled files could be read (DICOM?)."


def png_chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def test_huge_and_broken_images_are_not_decoded(tmp_path: Path) -> None:
    header = png_chunk(b"IHDR", struct.pack(">IIBBBBB", 12000, 10000, 8, 2, 0, 0, 0))
    for label in ("a", "b"):
        (tmp_path / "scans" / label).mkdir(parents=True)
        (tmp_path / "scans" / label / "1.png").write_bytes(b"\x89PNG\r\n\x1a\n" + header + png_chunk(b"IDAT", b""))
    task = start(tmp_path / "scans")[1]
    assert (task.color, task.height) == ("rgb", 64)


@pytest.mark.parametrize(("counts", "balance"), [((10, 10), "none"), ((10, 40), "class-weights")])
def test_uneven_classes_are_balanced(tmp_path: Path, counts: Size, balance: str) -> None:
    for label, count in zip("ab", counts, strict=True):
        write_images(tmp_path / "scans" / label, "L", (28, 28), count=count)
    assert start(tmp_path / "scans")[0].training.balance == balance


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({}, "found no folder"),
        ({"a.png": 1}, "found no folder"),
        ({"a/1.png": 1}, "found ['a']"),
        ({"a/1.png": 1, "b/": 0}, "'b' contains no files"),
        ({"train/a/1.png": 1, "test/a/1.png": 1}, "look like splits"),
        ({"a/1.png": 1, ".thumbnails/1.png": 1}, "found ['a']"),
        ({"a/1.png": 1, "b/.DS_Store": 1, "b/Thumbs.db": 1}, "'b' contains no files"),
        ({"a/1.png": 1, "b/1.png": 1, "__MACOSX/1.png": 1}, "'__MACOSX'"),
    ],
)
def test_a_folder_without_classes_is_rejected(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], files: Mapping[str, int], words: str
) -> None:
    folder = tmp_path / "scans"
    folder.mkdir()
    for name, count in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        if count:
            (folder / name).write_bytes(b"x")
        else:
            (folder / name).mkdir()
    assert main(["init", str(folder)]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert words in line
    assert [entry.name for entry in tmp_path.iterdir()] == ["scans"]


def test_a_folder_has_no_follow_up_and_is_not_overwritten(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for label in ("a", "b"):
        write_images(tmp_path / "scans" / label, "L", (28, 28), count=1)
    assert main(["init", str(tmp_path / "scans"), "--time", "days"]) == 1
    assert "require a CSV file" in capsys.readouterr().err
    start(tmp_path / "scans")
    before = (tmp_path / "scans.recipe.toml").read_bytes()
    assert main(["init", str(tmp_path / "scans")]) == 1
    assert "already exists" in capsys.readouterr().err
    assert (tmp_path / "scans.recipe.toml").read_bytes() == before


@settings(max_examples=50, deadline=None)
@given(
    names=st.lists(
        st.text(st.characters(codec="utf-8", exclude_characters="/\0"), min_size=1, max_size=8).filter(
            lambda name: name not in {".", ".."} and not name.startswith((".", "__"))
        ),
        min_size=2,
        max_size=4,
        unique=True,
    ),
    content=st.binary(max_size=40),
)
def test_any_folder_names_give_a_recipe_that_loads(
    tmp_path_factory: pytest.TempPathFactory, names: list[str], content: bytes
) -> None:
    folder = tmp_path_factory.mktemp("classes")
    for name in names:
        os.makedirs(folder / name, exist_ok=True)  # noqa: PTH103
        (folder / name / "1").write_bytes(content)
    recipe = build(Recipe, parse_toml(start_images(folder), "recipe"), "recipe")
    assert isinstance(recipe.task, ImageTask)
    assert sorted(recipe.task.labels) == sorted(names)
