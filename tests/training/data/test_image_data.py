import gzip
import io
import os
import struct
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from medserve_training.data.image_data import load_images, read_idx, read_medmnist
from medserve_training.data.splits import Images, Splits
from medserve_training.errors import UserError
from medserve_training.recipes.recipe import ImageTask, Recipe, load_recipe
from samples.dicom_files import dicom
from samples.image_files import png

Arrays = dict[str, np.ndarray[tuple[int, ...], np.dtype[np.generic]]]


def load(recipe: Recipe, data_dir: Path = Path()) -> Splits[Images]:
    assert isinstance(recipe.task, ImageTask)
    return load_images(recipe, recipe.task, data_dir)


@pytest.fixture
def medmnist() -> Arrays:
    random = np.random.default_rng(0)
    arrays: Arrays = {}
    for part, number in (("train", 6), ("val", 4), ("test", 4)):
        arrays[f"{part}_images"] = random.integers(0, 256, (number, 28, 28), dtype=np.uint8)
        arrays[f"{part}_labels"] = np.arange(number, dtype=np.uint8)[:, None] % 2
    return arrays


def write_idx(path: Path, array: np.ndarray[tuple[int, ...], np.dtype[np.uint8]]) -> None:
    content = struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape) + array.tobytes()
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)


def test_digits_use_the_full_pixel_range_and_are_28_by_28() -> None:
    data = load(load_recipe("digits"))
    assert data.train.pixels.shape[1:] == (28, 28, 1)
    assert (data.train.pixels.min(), data.train.pixels.max()) == (0, 255)
    assert sum(len(part.labels) for part in (data.train, data.validation, data.test)) == 1797


def test_images_shared_with_validation_are_dropped_from_training(medmnist: Arrays, tmp_path: Path) -> None:
    medmnist["train_images"][2] = medmnist["val_images"][0]
    medmnist["train_images"][5] = medmnist["test_images"][3]
    np.savez(tmp_path / "pneumoniamnist.npz", **medmnist)  # type: ignore[arg-type]
    data = load(load_recipe("chest-xray"), tmp_path)
    np.testing.assert_array_equal(data.train.pixels[..., 0], medmnist["train_images"][[0, 1, 3, 4]])
    np.testing.assert_array_equal(data.validation.pixels[..., 0], medmnist["val_images"])


def test_pneumoniamnist_training_and_validation_are_disjoint(pneumonia_folder: Path) -> None:
    data = load(load_recipe("chest-xray"), pneumonia_folder)
    # 10 of 4,708: eight distinct images, two of which occur twice.
    assert [len(part.labels) for part in (data.train, data.validation, data.test)] == [4698, 524, 624]
    assert data.test.labels.mean() == pytest.approx(0.625)


@pytest.mark.parametrize(
    ("key", "array", "message"),
    [
        ("val_images", np.zeros((4, 28, 28)), "val_images is float64"),
        ("val_images", np.zeros((4, 784), np.uint8), r"val_images is uint8 \[4, 784\]"),
        ("val_labels", np.zeros((3, 1), np.uint8), r"val_labels has the shape \[3, 1\]"),
        ("val_labels", np.zeros((4, 14), np.uint8), "multi-label data sets are not supported"),
        ("val_labels", np.full((4, 1), 7, np.uint8), "expected the classes 0 to 1"),
        ("val_images", np.zeros((4, 28, 28, 3), np.uint8), "has 3 channels, but task.color is 'gray'"),
        ("val_images", np.array([None] * 4), "is not a MedMNIST file"),
    ],
)
def test_invalid_arrays_in_a_medmnist_file_are_named(
    medmnist: Arrays, tmp_path: Path, key: str, array: np.ndarray[tuple[int, ...], np.dtype[np.generic]], message: str
) -> None:
    medmnist[key] = array
    np.savez(tmp_path / "pneumoniamnist.npz", **medmnist)  # type: ignore[arg-type]
    with pytest.raises(UserError, match=message):
        load(load_recipe("chest-xray"), tmp_path)


def test_an_incomplete_or_truncated_medmnist_file_is_rejected(medmnist: Arrays, tmp_path: Path) -> None:
    path = tmp_path / "pneumoniamnist.npz"
    del medmnist["test_labels"]
    np.savez(path, **medmnist)  # type: ignore[arg-type]
    with pytest.raises(UserError, match="test_labels"):
        read_medmnist("pneumoniamnist", tmp_path)
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(UserError, match="is not a MedMNIST file"):
        read_medmnist("pneumoniamnist", tmp_path)


def test_the_error_about_a_missing_medmnist_file_explains_how_to_get_it(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"breastmnist\.npz is missing.*--data-dir.*pip install medmnist"):
        read_medmnist("breastmnist", tmp_path)


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_idx_files_are_read_and_validation_is_split_from_training(tmp_path: Path, suffix: str) -> None:
    random = np.random.default_rng(0)
    pixels = random.integers(0, 256, (200, 28, 28), dtype=np.uint8)
    labels = np.arange(200, dtype=np.uint8) % 10
    for prefix in ("train", "t10k"):
        write_idx(tmp_path / f"{prefix}-images-idx3-ubyte{suffix}", pixels + (prefix == "t10k"))
        write_idx(tmp_path / f"{prefix}-labels-idx1-ubyte{suffix}", labels)
    data = load(load_recipe("fashion-mnist", data=f"idx:{tmp_path}"))
    assert [len(part.labels) for part in (data.train, data.validation, data.test)] == [180, 20, 200]
    # Stratified: two of each class.
    assert np.bincount(data.validation.labels).tolist() == [2] * 10
    np.testing.assert_array_equal(data.test.pixels[..., 0], pixels + 1)


def test_broken_idx_files_are_rejected(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_idx(path, np.zeros((3, 28, 28), np.uint8))
    whole = path.read_bytes()
    for content, message in (
        (whole[:-1], r"has 2367 bytes, but its header \[3, 28, 28\] implies 2368"),
        (whole + b"x", "has 2369 bytes"),
        (whole[:9], "has 9 bytes"),
        (b"\x00\x00\x0d\x03" + whole[4:], "starts with 00000d03, expected 00000803"),
        (b"", "starts with , expected"),
    ):
        path.write_bytes(content)
        with pytest.raises(UserError, match=message):
            read_idx(path, dimensions=3)
    zipped = tmp_path / "file.gz"
    zipped.write_bytes(gzip.compress(whole)[:-20])
    with pytest.raises(UserError, match="not a complete gzip file"):
        read_idx(zipped, dimensions=3)


def test_class_folders_are_read_in_the_order_of_the_labels(tmp_path: Path) -> None:
    for label, gray in (("pneumonia", 200), ("normal", 50)):
        (tmp_path / label).mkdir()
        for index in range(10):
            Image.new("RGB", (40, 30), (gray + index, gray + index, gray + index)).save(
                tmp_path / label / f"{index}.png"
            )
    data = load(load_recipe("chest-xray", data=f"folder:{tmp_path}"))
    for part in (data.train, data.validation, data.test):
        assert part.pixels.shape[1:] == (28, 28, 1)
        np.testing.assert_array_equal(part.labels, part.pixels[:, 0, 0, 0] >= 200)
    (tmp_path / "normal" / "0.png").write_text("not a picture", encoding="utf-8")
    with pytest.raises(UserError, match=r"normal/0\.png: is not a PNG, JPEG, TIFF or DICOM file"):
        load(load_recipe("chest-xray", data=f"folder:{tmp_path}"))
    (tmp_path / "other").mkdir()
    with pytest.raises(UserError, match=r"expected one for each label: \['normal', 'pneumonia'\]"):
        load(load_recipe("chest-xray", data=f"folder:{tmp_path}"))


def fill(folder: Path, **classes: list[bytes]) -> Path:
    """Writes class folders with `count` files each."""
    for label, files in classes.items():
        (folder / label).mkdir(parents=True)
        for index, data in enumerate(files):
            (folder / label / f"{index:02}").write_bytes(data)
    return folder


def noise(seed: int) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    return np.random.default_rng(seed).integers(0, 256, (28, 28), np.uint8)


def png_of(pixels: np.ndarray[tuple[int, ...], np.dtype[np.uint8]], bits: int) -> bytes:
    return png(pixels[..., None].astype(int) * (257 if bits == 16 else 1), bits, 0)


def test_16_bit_and_8_bit_files_give_the_same_pixels(tmp_path: Path) -> None:
    pictures = [noise(seed) for seed in range(20)]
    folder = fill(
        tmp_path,
        normal=[png_of(picture, 8) for picture in pictures[:10]],
        pneumonia=[png_of(picture, 16) for picture in pictures[10:]],
    )
    data = load(load_recipe("chest-xray", data=f"folder:{folder}"))
    found = {picture.tobytes() for part in (data.train, data.validation, data.test) for picture in part.pixels}
    assert found == {picture.tobytes() for picture in pictures}


def test_a_class_of_another_depth_is_reported_in_one_line(tmp_path: Path) -> None:
    folder = fill(
        tmp_path,
        normal=[png_of(noise(seed), 8) for seed in range(12)],
        pneumonia=[png_of(noise(seed), 16 if seed < 107 else 8) for seed in range(100, 110)],
    )
    assert printed(folder) == (
        f"{folder}: 7 of 22 images: reduced from 16 to 8 bits, 65535 becoming 255 (normal 0 of 12, pneumonia 7 of 10)\n"
    )


def test_every_conversion_is_reported_and_differing_messages_are_summarized(tmp_path: Path) -> None:
    sizes = [Image.new("RGB", (30 + seed, 40), (seed, seed, 0)) for seed in range(20)]
    files = []
    for image in sizes:
        file = io.BytesIO()
        image.save(file, "PNG")
        files.append(file.getvalue())
    line = printed(fill(tmp_path, normal=files[:10], pneumonia=files[10:]))
    assert line.count("\n") == 1
    assert "20 of 20 images: converted from RGB to L; " in line
    assert "20 of 20 images: resized" in line


def test_nothing_is_printed_without_conversions(tmp_path: Path) -> None:
    files = [png_of(noise(seed), 8) for seed in range(20)]
    assert not printed(fill(tmp_path, normal=files[:10], pneumonia=files[10:]))


def printed(folder: Path) -> str:
    recipe = load_recipe("chest-xray", data=f"folder:{folder}")
    assert isinstance(recipe.task, ImageTask)
    file = io.StringIO()
    load_images(recipe, recipe.task, Path(), Console(file=file, width=40))
    return file.getvalue()


def test_class_folders_may_contain_dicom_files_and_file_manager_metadata(tmp_path: Path) -> None:
    pictures = [noise(seed) for seed in range(20)]
    folder = fill(
        tmp_path,
        normal=[dicom(picture) for picture in pictures[:10]],
        pneumonia=[dicom(np.stack([picture, 255 - picture]), frames=2) for picture in pictures[10:]],
    )
    for name in (".DS_Store", "Thumbs.db", "desktop.ini", "DICOMDIR", "._0"):
        (folder / "normal" / name).write_bytes(b"no image")
    (folder / ".git").mkdir()
    data = load(load_recipe("chest-xray", data=f"folder:{folder}"))
    found = {picture.tobytes() for part in (data.train, data.validation, data.test) for picture in part.pixels}
    assert found == {picture.tobytes() for picture in pictures}, "the first frame of each"
    line = "10 of 20 images: has 2 frames; only the first is read (normal 0 of 10, pneumonia 10 of 10)"
    assert line in printed(folder)


def test_a_file_in_a_class_folder_that_is_not_an_image_is_named(tmp_path: Path) -> None:
    files = [png_of(noise(seed), 8) for seed in range(20)]
    folder = fill(tmp_path, normal=files[:10], pneumonia=files[10:])
    recipe = load_recipe("chest-xray", data=f"folder:{folder}")
    extra = folder / "normal" / "more"
    extra.mkdir()
    with pytest.raises(UserError, match=r"normal/more: is a folder; expected image files only"):
        load(recipe)
    extra.rmdir()
    os.mkfifo(extra)
    with pytest.raises(UserError, match=r"normal/more: is not a file"):
        load(recipe)
    extra.unlink()
    extra.symlink_to("nowhere")
    with pytest.raises(UserError, match=r"normal/more: .*No such file"):
        load(recipe)
    extra.unlink()
    for path in folder.glob("*/*"):
        path.unlink()
    (folder / "normal" / ".DS_Store").touch()
    with pytest.raises(UserError, match="its class folders are empty"):
        load(recipe)


def test_an_unknown_spec_lists_the_known_ones() -> None:
    with pytest.raises(UserError, match=r"'gbsg': expected medmnist:NAME, idx:FOLDER, digits or folder:PATH"):
        load(load_recipe("digits", data="gbsg"))
