import gzip
import struct
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from medserve_training.errors import UserError
from medserve_training.image_data import load_images, read_idx, read_medmnist
from medserve_training.recipe import ImageTask, Recipe, load_recipe
from medserve_training.splits import Images, Splits

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


def test_digits_fill_the_range_of_a_pixel_and_the_articles_28_by_28() -> None:
    data = load(load_recipe("digits"))
    assert data.train.pixels.shape[1:] == (28, 28, 1)
    assert (data.train.pixels.min(), data.train.pixels.max()) == (0, 255)
    assert sum(len(part.labels) for part in (data.train, data.validation, data.test)) == 1797


def test_pictures_shared_with_validation_leave_training(medmnist: Arrays, tmp_path: Path) -> None:
    medmnist["train_images"][2] = medmnist["val_images"][0]
    medmnist["train_images"][5] = medmnist["test_images"][3]
    np.savez(tmp_path / "pneumoniamnist.npz", **medmnist)  # type: ignore[arg-type]
    data = load(load_recipe("chest-xray"), tmp_path)
    np.testing.assert_array_equal(data.train.pixels[..., 0], medmnist["train_images"][[0, 1, 3, 4]])
    np.testing.assert_array_equal(data.validation.pixels[..., 0], medmnist["val_images"])


def test_pneumoniamnist_keeps_nothing_in_training_that_is_in_validation(pneumonia_folder: Path) -> None:
    data = load(load_recipe("chest-xray"), pneumonia_folder)
    # 10 of 4,708: eight different pictures, two of them twice.
    assert [len(part.labels) for part in (data.train, data.validation, data.test)] == [4698, 524, 624]
    assert data.test.labels.mean() == pytest.approx(0.625)


@pytest.mark.parametrize(
    ("key", "array", "message"),
    [
        ("val_images", np.zeros((4, 28, 28)), "val_images is float64"),
        ("val_images", np.zeros((4, 784), np.uint8), r"val_images is uint8 \[4, 784\]"),
        ("val_labels", np.zeros((3, 1), np.uint8), r"val_labels has the shape \[3, 1\]"),
        ("val_labels", np.zeros((4, 14), np.uint8), "several labels a picture are not supported"),
        ("val_labels", np.full((4, 1), 7, np.uint8), "expected the classes 0 to 1"),
        ("val_images", np.zeros((4, 28, 28, 3), np.uint8), "has 3 channels, but task.color is 'gray'"),
        ("val_images", np.array([None] * 4), "is not a MedMNIST file"),
    ],
)
def test_wrong_arrays_in_a_medmnist_file_are_named(
    medmnist: Arrays, tmp_path: Path, key: str, array: np.ndarray[tuple[int, ...], np.dtype[np.generic]], message: str
) -> None:
    medmnist[key] = array
    np.savez(tmp_path / "pneumoniamnist.npz", **medmnist)  # type: ignore[arg-type]
    with pytest.raises(UserError, match=message):
        load(load_recipe("chest-xray"), tmp_path)


def test_a_medmnist_file_without_an_array_or_cut_short_is_refused(medmnist: Arrays, tmp_path: Path) -> None:
    path = tmp_path / "pneumoniamnist.npz"
    del medmnist["test_labels"]
    np.savez(path, **medmnist)  # type: ignore[arg-type]
    with pytest.raises(UserError, match="test_labels"):
        read_medmnist("pneumoniamnist", tmp_path)
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(UserError, match="is not a MedMNIST file"):
        read_medmnist("pneumoniamnist", tmp_path)


def test_a_missing_medmnist_file_says_how_to_get_it(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"breastmnist\.npz is missing.*--data-dir.*pip install medmnist"):
        read_medmnist("breastmnist", tmp_path)


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_idx_files_are_read_and_validation_is_cut_from_training(tmp_path: Path, suffix: str) -> None:
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


def test_broken_idx_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_idx(path, np.zeros((3, 28, 28), np.uint8))
    whole = path.read_bytes()
    for content, message in (
        (whole[:-1], r"has 2367 bytes, but its header \[3, 28, 28\] asks for 2368"),
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
    with pytest.raises(UserError, match="not a whole gzip file"):
        read_idx(zipped, dimensions=3)


def test_class_folders_are_read_in_the_order_of_the_labels(tmp_path: Path) -> None:
    for label, grey in (("pneumonia", 200), ("normal", 50)):
        (tmp_path / label).mkdir()
        for index in range(10):
            Image.new("RGB", (40, 30), (grey + index, grey + index, grey + index)).save(
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


def test_an_unknown_spec_lists_the_known_ones() -> None:
    with pytest.raises(UserError, match=r"'gbsg': expected medmnist:NAME, idx:FOLDER, digits or folder:PATH"):
        load(load_recipe("digits", data="gbsg"))
