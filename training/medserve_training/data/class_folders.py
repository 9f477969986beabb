"""Reads PNG, JPEG, TIFF and DICOM files from one folder per class, in the same way as the server."""

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from rich.console import Console

from medserve_images import ImageLimits, ImageReader, ImageRefused, ImageWarning, Pixels
from medserve_training.data.splits import Images
from medserve_training.errors import UserError
from medserve_training.recipes.recipe import ImageTask

# Files that file managers and DICOM media leave next to the images, in lower case.
_NO_IMAGES = {"thumbs.db", "desktop.ini", "dicomdir"}
# Summaries of the kinds of warnings, for those whose messages differ between images.
_WORDS = {
    "RESIZED": "resized",
    "CROPPED": "cropped",
    "COLOR_CONVERTED": "converted in color",
    "DEPTH_REDUCED": "reduced to 8 bits, in different ways",
    "FIRST_OF_SEVERAL": "the first of several in their file",
    "RANGE_UNUSED": "far below the range of their bits",
    "PROFILE_IGNORED": "read without their color profile",
    "ELEMENT_IGNORED": "read without an element of their file",
}


def read_class_folders(folder: Path, task: ImageTask, console: Console | None = None) -> dict[str, Images]:
    """Reads a folder that contains one folder of image files for each label.

    Hidden files, Thumbs.db, desktop.ini and DICOMDIR are skipped; anything else has to be an image. Of a multi-frame
    DICOM file only the first frame is read, which is also the server's default: reading all would spread the frames of
    one patient over training and test.

    Args:
        folder: Contains the class folders.
        task: Specifies the labels, and the size and color that images are converted to.
        console: Receives one line that summarizes how many images of each class were converted, and how.

    Raises:
        UserError: The folders do not match the labels, all are empty, or a file is not an image.
    """
    found = sorted(entry.name for entry in visible(folder) if entry.is_dir()) if folder.is_dir() else []
    if set(found) != set(task.labels):
        raise UserError(f"{folder}: contains the folders {found}, expected one for each label: {list(task.labels)}")
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
    """Returns the entries of a folder, sorted by name, except hidden and well-known system files."""
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
    """Summarizes the warnings with the number of affected images, by class if not all are; empty without warnings."""
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
