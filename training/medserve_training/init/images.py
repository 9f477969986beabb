"""Starts an image recipe from a folder that holds one folder of images for each class."""

import warnings
from collections.abc import Sequence
from itertools import chain, islice
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from medserve_training.data.class_folders import visible
from medserve_training.errors import UserError
from medserve_training.init.table import words
from medserve_training.init.toml_text import comment, recipe_name, table, toml

# Images looked at in each class.
_SAMPLE = 8
# Larger ones are not decoded.
_MOST_PIXELS = 50_000_000
_GRAY_MODES = frozenset(["1", "L", "LA", "I", "F", "I;16", "I;16L", "I;16B", "I;16N"])
_SMALLEST, _LARGEST = 28, 64
# Largest difference between the channels of a gray image after JPEG.
_GRAY_SPREAD = 12
_NORMAL = frozenset(
    ["normal", "healthy", "negative", "neg", "control", "controls", "benign", "no", "not", "none", "without", "0"]
)
_SPLITS = frozenset(["train", "training", "test", "val", "valid", "validation"])


class _Header(NamedTuple):
    width: int
    height: int
    gray: bool


def start_images(folder: Path) -> str:
    """Guesses a recipe; only a few files of each class are opened.

    Args:
        folder: Holds one folder for each class.

    Returns:
        The text of the recipe.

    Raises:
        UserError: The folder does not hold two or more folders with files.
    """
    files = _class_files(folder)
    labels = (
        sorted(files, key=lambda label: (not _NORMAL & set(words(label)), label)) if len(files) == 2 else sorted(files)
    )
    sampled = [_read_header(path) for path in chain.from_iterable(files[label][:_SAMPLE] for label in labels)]
    headers = [header for header in sampled if header is not None]
    count = sum(map(len, files.values()))
    name = recipe_name(folder.resolve().name)
    head = {"name": name, "seed": 1}
    data = {"spec": f"folder:{folder}", "description": f"{folder.resolve().name}, {count} images"}
    texts = {
        "title": f"{labels[1]} or {labels[0]}" if len(labels) == 2 else f"One of {len(labels)} classes",
        "description": f"A small residual network that tells apart {_listed(labels)}.",
        "intended_use": "Research. Not a medical device, not for diagnosis.",
        "license": "NOASSERTION",
    }
    parts = [
        comment(
            f"Trains an image classifier on {toml(folder.resolve().name)}, by medserve-train init. Check what is "
            "marked as a guess."
        )
        + "\n"
        + table("", head, {"name": "the folder's name. The model is written to models/NAME/1 and served as NAME."}),
        table(
            "[data]",
            data,
            {"description": "the folder's name. Say where the data comes from, its version and its license."},
        ),
        table("[network]", {"name": "residual-se", "widths": [16, 32, 64], "dropout": 0.3}),
        _training(files),
        table("[augmentation]", _AUGMENTATION, {"flip": "set it to true only where left and right do not matter."}),
        table("[split]", {"validation": 0.15, "test": 0.15}),
        _task(labels, headers, len(sampled)),
        table("[manifest]", texts, _TEXT_NOTES),
    ]
    return "\n".join(parts)


def _class_files(folder: Path) -> dict[str, list[Path]]:
    """The files of each class."""
    names = [entry.name for entry in visible(folder) if entry.is_dir()]
    expected = f"{folder}: expected one folder of images for each class, two classes or more"
    if len(names) < 2:
        raise UserError(f"{expected}, but found {names or 'no folder'}")
    if any(name.lower() in _SPLITS for name in names):
        raise UserError(
            f"{expected}, but found {names}, which sound like splits; medserve-train makes the splits itself"
        )
    for name in names:
        if name.startswith("__"):
            raise UserError(f"{folder} holds the folder {name!r}, which is hardly a class; remove it")
        try:
            name.encode()
        except UnicodeEncodeError as error:
            raise UserError(f"{folder} holds a folder whose name {name!r} is not UTF-8; rename it") from error
    files = {name: [entry for entry in visible(folder / name) if entry.is_file()] for name in names}
    if empty := [name for name, found in files.items() if not found]:
        raise UserError(f"{expected}, but the folder {empty[0]!r} holds no files")
    return files


def _read_header(path: Path) -> _Header | None:
    """Size and color of an image; None where Pillow does not know the file, e.g. DICOM."""
    try:
        # Large images and odd palettes are no news here.
        with warnings.catch_warnings(action="ignore"), Image.open(path) as image:
            width, height = image.size
            gray = image.mode in _GRAY_MODES
            if not gray and width * height <= _MOST_PIXELS:
                channels = np.asarray(image.convert("RGB").reduce(max(1, min(image.size) // 64)), dtype=np.int16)
                gray = bool((channels.max(axis=2) - channels.min(axis=2)).max() <= _GRAY_SPREAD)
            return _Header(width, height, gray)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return None


def _training(files: dict[str, list[Path]]) -> str:
    sizes = [len(found) for found in files.values()]
    uneven = max(sizes) > 1.5 * min(sizes)
    training = {
        "epochs": 20,
        "batch_size": 32,
        "learning_rate": 1e-3,
        "loss": "cross-entropy",
        "optimizer": "adamw",
        "weight_decay": 0.05,
        "schedule": "cosine",
        "warmup": 0.1,
        "balance": "class-weights" if uneven else "none",
        "members": 1,
    }
    notes = {
        "epochs": "settings for a few thousand images; `medserve-train tune` searches for better ones by the loss on "
        "validation.",
        "balance": f'the classes have {min(sizes)} to {max(sizes)} images. "class-weights" lets rare classes count '
        "as much as common ones.",
        "members": "a single network. An ensemble of 3 or 5 is more accurate and reports its uncertainty, for 3 or 5 "
        "times the time.",
    }
    return table("[training]", training, notes)


def _task(labels: Sequence[str], headers: Sequence[_Header], sampled: int) -> str:
    looked = (
        f"of {sampled} images looked at" if headers else f"none of {sampled} files looked at could be read (DICOM?)"
    )
    smallest = min((min(header.width, header.height) for header in headers), default=_LARGEST)
    size = min(max(smallest, _SMALLEST), _LARGEST)
    gray = sum(header.gray for header in headers)
    square = all(header.width == header.height for header in headers)
    task = {
        "kind": "image-classification",
        "height": size,
        "width": size,
        "color": "gray" if gray == len(headers) else "rgb",
        "crop": "center",
        "resampling": "bicubic",
        "labels": list(labels),
    }
    notes = {
        "height": (f"{looked}, the shortest side has {smallest} pixels" if headers else looked)
        + f". {_SMALLEST} to {_LARGEST} pixels train in minutes on a CPU; fine detail may need more.",
        "color": f"{gray} {looked} are gray." if headers else f"{looked}.",
        "crop": ("the images looked at are square" if headers and square else "not all images are square")
        + '. "center" keeps the proportions and cuts off the ends of the longer side; "none" distorts them.',
        "resampling": '"bicubic" is sharper than "bilinear".',
        "labels": "the names of the folders"
        + (f". The second, {toml(labels[1])}, is the positive one." if len(labels) == 2 else "."),
    }
    return table("[task]", task, notes)


def _listed(labels: Sequence[str]) -> str:
    shown = list(islice(labels, 5))
    return ", ".join(shown) + (", ..." if len(labels) > len(shown) else "")


_AUGMENTATION = {"rotation": 10.0, "shift": 2.0, "scale": 0.1, "contrast": 0.2, "brightness": 0.2, "flip": False}
_TEXT_NOTES = {
    "title": "the names of the classes. Set it to what the model tells apart, and in which images.",
    "intended_use": "unknown. Say whom the model is for, and whom it is not for.",
    "license": 'unknown. Set it to the SPDX identifier of the model file\'s license, e.g. "CC-BY-4.0".',
}
