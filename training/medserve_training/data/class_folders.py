"""Reads folders of classes that hold PNG, JPEG, TIFF and DICOM files, as the server reads them."""

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from rich.console import Console

from medserve_images import ImageLimits, ImageReader, ImageRefused, ImageWarning, Pixels
from medserve_training.data.splits import Images
from medserve_training.errors import UserError
from medserve_training.recipes.recipe import ImageTask

# What file managers and DICOM media leave beside the images, in lower case.
_NO_IMAGES = {"thumbs.db", "desktop.ini", "dicomdir"}
# Where the messages of a kind differ from image to image.
_WORDS = {
    "RESIZED": "resized",
    "CROPPED": "cropped",
    "COLOR_CONVERTED": "converted in color",
    "DEPTH_REDUCED": "reduced to 8 bits, in different ways",
    "FIRST_OF_SEVERAL": "the first of several in their file",
    "RANGE_UNUSED": "far below the range of their bits",
    "PROFILE_IGNORED": "read without their color profile",
}


def read_class_folders(folder: Path, task: ImageTask, console: Console | None = None) -> dict[str, Images]:
    """Reads a folder that holds one folder of image files for each label.

    Hidden files, Thumbs.db, desktop.ini and DICOMDIR are skipped; anything else has to be an image. Of a DICOM file
    with several frames the first is read, as the server does where no frame is asked for: all of them would spread the
    frames of one patient over training and test.

    Args:
        folder: Holds the class folders.
        task: Gives the labels, and what the images are brought to.
        console: For one line that says how many images of each class were changed when they were read, and how.

    Raises:
        UserError: The folders are not the labels, all are empty, or a file is not an image.
    """
    found = sorted(entry.name for entry in visible(folder) if entry.is_dir()) if folder.is_dir() else []
    if set(found) != set(task.labels):
        raise UserError(f"{folder}: holds the folders {found}, expected one for each label: {list(task.labels)}")
    reader = ImageReader(task.target, ImageLimits())
    pixels: list[Pixels] = []
    labels: list[int] = []
    warnings: list[list[ImageWarning]] = []
    for index, label in enumerate(task.labels):
        for path in visible(folder / label):
            image, found_here = _read_image(path, reader)
            pixels.append(image)
            labels.append(index)
            warnings.append(found_here)
    if not pixels:
        raise UserError(f"{folder}: its class folders are empty")
    if console is not None and (summary := _summary(warnings, labels, task.labels)):
        console.print(f"{folder}: {summary}", highlight=False, markup=False, emoji=False, soft_wrap=True)
    return {"train": Images(np.stack(pixels), np.array(labels, dtype=np.int64))}


def visible(folder: Path) -> list[Path]:
    """The entries of a folder in the order of their names, without those that are known not to be images or classes."""
    return sorted(
        path for path in folder.iterdir() if not path.name.startswith(".") and path.name.lower() not in _NO_IMAGES
    )


def _read_image(path: Path, reader: ImageReader) -> tuple[Pixels, list[ImageWarning]]:
    if path.is_dir():
        raise UserError(f"{path}: is a folder; expected image files only")
    if path.exists() and not path.is_file():
        raise UserError(f"{path}: is not a file")
    try:
        return reader.read(path.read_bytes())
    except (ImageRefused, OSError) as error:
        raise UserError(f"{path}: {error}") from error


def _summary(warnings: Sequence[Sequence[ImageWarning]], labels: Sequence[int], names: Sequence[str]) -> str:
    """What was changed in how many images, of each class where the classes differ; empty if nothing was."""
    rows: dict[str, set[int]] = defaultdict(set)
    messages: dict[str, set[str]] = defaultdict(set)
    for row, found in enumerate(warnings):
        for warning in found:
            rows[warning.kind].add(row)
            messages[warning.kind].add(warning.message)
    totals = np.bincount(labels, minlength=len(names)).tolist()
    parts = []
    for kind, affected in rows.items():
        text = messages[kind].pop() if len(messages[kind]) == 1 else _WORDS[kind]
        part = f"{len(affected)} of {len(labels)} images: {text}"
        if len(affected) < len(labels):
            counts = np.bincount([labels[row] for row in affected], minlength=len(names)).tolist()
            each = (f"{name} {count} of {total}" for name, count, total in zip(names, counts, totals, strict=True))
            part += f" ({', '.join(each)})"
        parts.append(part)
    return "; ".join(parts)
