"""Loaders of image data: MedMNIST, IDX files and scikit-learn's digits; `class_folders` reads class folders."""

import gzip
import math
import zipfile
import zlib
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from rich.console import Console
from sklearn.datasets import load_digits

from medserve_images import ImageLimits, ImageReader
from medserve_training.data.class_folders import read_class_folders
from medserve_training.data.splits import Images, Splits, cut, drop_shared
from medserve_training.errors import UserError
from medserve_training.recipes.recipe import ImageTask, Recipe


def load_images(recipe: Recipe, task: ImageTask, data_dir: Path, console: Console | None = None) -> Splits[Images]:
    """Loads and splits the images that a recipe's data spec names.

    Args:
        recipe: Specifies the data, the fractions of the split and the seed.
        task: Specifies the classes, and the size and color that images are converted to.
        data_dir: Folder of MedMNIST's files.
        console: Receives a summary of the conversions of image files in class folders; None to suppress it.

    Raises:
        UserError: The data is missing, corrupt or does not match the task, or there are too few images to split them.
    """
    spec = recipe.data.spec
    read = _read(spec, task, data_dir, console)
    parts = {name: _convert(images, task, spec) for name, images in read.items()}
    return drop_shared(cut(parts, recipe.split, recipe.seed, task.labels))


def load_pictures(spec: str, task: ImageTask, data_dir: Path) -> NDArray[np.uint8]:
    """Loads the images of another data set, without labels: those of its test split if it has one.

    Raises:
        UserError: The data is missing or corrupt, or its color differs from the task's.
    """
    parts = _read(spec, task, data_dir, None)
    pixels = parts.get("test", parts["train"]).pixels
    return _resize(pixels, task, spec)


def _read(spec: str, task: ImageTask, data_dir: Path, console: Console | None) -> dict[str, Images]:
    kind, _, place = spec.partition(":")
    readers: dict[str, Callable[[], dict[str, Images]]] = {
        "medmnist": lambda: read_medmnist(place, data_dir),
        "idx": lambda: read_idx_folder(Path(place)),
        "digits": read_digits,
        "folder": lambda: read_class_folders(Path(place), task, console),
    }
    if kind not in readers:
        raise UserError(
            f"data spec {spec!r}: expected medmnist:NAME, idx:FOLDER, digits or folder:PATH for the task {task.kind!r}",
        )
    return readers[kind]()


def read_medmnist(name: str, data_dir: Path) -> dict[str, Images]:
    """Reads a data set of MedMNIST from NAME.npz, downloading it first where the medmnist package is installed.

    Raises:
        UserError: The file is missing and cannot be downloaded, or its arrays are not those of MedMNIST.
    """
    path = data_dir / f"{name}.npz"
    if not path.is_file():
        _download_medmnist(name, data_dir)
    parts = {}
    try:
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as file:
            for part, key in (("train", "train"), ("validation", "val"), ("test", "test")):
                parts[part] = _medmnist_part(path, key, file[f"{key}_images"], file[f"{key}_labels"])
    except (ValueError, OSError, EOFError, zipfile.BadZipFile, zlib.error, KeyError) as error:
        raise UserError(f"{path} is not a MedMNIST file: {error}. Delete it and fetch it again.") from error
    return parts


def _medmnist_part(path: Path, key: str, pixels: NDArray[np.uint8], labels: NDArray[np.integer]) -> Images:
    if pixels.dtype != np.uint8 or pixels.ndim not in (3, 4):
        raise UserError(f"{path}: {key}_images is {pixels.dtype} {list(pixels.shape)}, expected uint8 [n, h, w(, 3)]")
    if labels.shape != (len(pixels), 1):
        raise UserError(
            f"{path}: {key}_labels has the shape {list(labels.shape)}, expected [{len(pixels)}, 1]: "
            "one class for each image (multi-label data sets are not supported)",
        )
    return Images(pixels.reshape(*pixels.shape[:3], -1), labels[:, 0].astype(np.int64))


def _download_medmnist(name: str, data_dir: Path) -> None:
    if find_spec("medmnist") is None:
        raise UserError(
            f"{data_dir / name}.npz is missing. Either download {name}.npz (https://medmnist.com) into that folder, "
            "or name its folder with --data-dir or MEDSERVE_DATA, or install the package that downloads it: "
            "pip install medmnist",
        )
    import medmnist  # noqa: PLC0415 - optional, and slow to import

    if name not in medmnist.INFO:
        raise UserError(
            f"data spec medmnist:{name}: no such data set; expected one of {', '.join(sorted(medmnist.INFO))}"
        )
    data_dir.mkdir(parents=True, exist_ok=True)
    getattr(medmnist, medmnist.INFO[name]["python_class"])(split="train", download=True, root=str(data_dir))


def read_idx_folder(folder: Path) -> dict[str, Images]:
    """Reads the four files of MNIST or Fashion-MNIST, gzipped or not.

    Raises:
        UserError: A file is missing or corrupt, or the numbers of images and labels differ.
    """
    parts = {}
    for part, prefix in (("train", "train"), ("test", "t10k")):
        pixels = read_idx(_find_idx(folder, f"{prefix}-images-idx3-ubyte"), dimensions=3)
        labels = read_idx(_find_idx(folder, f"{prefix}-labels-idx1-ubyte"), dimensions=1)
        if len(pixels) != len(labels):
            raise UserError(f"{folder}: {prefix} has {len(pixels)} images but {len(labels)} labels")
        parts[part] = Images(pixels[..., np.newaxis], labels.astype(np.int64))
    return parts


def _find_idx(folder: Path, name: str) -> Path:
    for path in (folder / name, folder / f"{name}.gz"):
        if path.is_file():
            return path
    raise UserError(
        f"{folder / name} is missing, with and without .gz; --data idx:FOLDER names the folder of the four files "
        "(Debian's package dataset-fashion-mnist puts them in /usr/share/datasets/fashion-mnist)",
    )


def read_idx(path: Path, dimensions: int) -> NDArray[np.uint8]:
    """Reads one IDX file of unsigned bytes (http://yann.lecun.com/exdb/mnist).

    Raises:
        UserError: The magic number, the number of dimensions or the length is wrong.
    """
    try:
        content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise UserError(f"{path} is not a complete gzip file: {error}") from error
    magic = bytes([0, 0, 8, dimensions])
    if content[:4] != magic:
        raise UserError(f"{path}: starts with {content[:4].hex()}, expected {magic.hex()} (IDX, {dimensions}-d bytes)")
    start = 4 + 4 * dimensions
    shape = [int.from_bytes(content[at : at + 4]) for at in range(4, start, 4)]
    expected = start + math.prod(shape)
    if len(content) != expected:
        raise UserError(f"{path}: has {len(content)} bytes, but its header {shape} implies {expected}")
    # PyTorch requires a writable array.
    return np.frombuffer(content, dtype=np.uint8, offset=start).reshape(shape).copy()


def read_digits() -> dict[str, Images]:
    """Returns the 1,797 digits of scikit-learn, 8 x 8, their 17 gray levels scaled to 0 to 255."""
    digits = load_digits()
    pixels = np.round(digits.images * (255 / 16)).astype(np.uint8)
    return {"train": Images(pixels[..., np.newaxis], digits.target.astype(np.int64))}


def _convert(images: Images, task: ImageTask, spec: str) -> Images:
    pixels, labels = images
    if len(pixels) == 0 or labels.min() < 0 or labels.max() >= len(task.labels):
        raise UserError(f"{spec}: expected the classes 0 to {len(task.labels) - 1}, as many as task.labels")
    return Images(_resize(pixels, task, spec), labels)


def _resize(pixels: NDArray[np.uint8], task: ImageTask, spec: str) -> NDArray[np.uint8]:
    if pixels.shape[3] != task.channels:
        raise UserError(f"{spec}: has {pixels.shape[3]} channels, but task.color is {task.color!r}")
    if pixels.shape[1:3] == (task.height, task.width):
        return pixels
    reader = ImageReader(task.target, ImageLimits())
    return np.stack([reader.fit(Image.fromarray(picture.squeeze()), []) for picture in pixels])
