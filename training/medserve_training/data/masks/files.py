"""Reads images with masks: the nuclei of the Data Science Bowl, the fetal heads of HC18, and folders of files."""

import csv
import io
import zipfile
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from medserve_images import ImageLimits, ImageReader, ImageRefused, Target
from medserve_training.data.class_folders import visible
from medserve_training.data.masks.image import MaskedImage, MaskedImages
from medserve_training.errors import UserError
from medserve_training.recipes.segmentation_settings import SegmentationTask

_CYTOLOGY_WIDTH = 1024
_MASK_TYPES = (".png", ".tif", ".tiff")
_COLUMNS = ("name", "group", "kind", "row_mm", "column_mm", "reference_mm")


def read_masks(spec: str, task: SegmentationTask, data_dir: Path) -> MaskedImages:
    """Reads the images that a data spec names.

    Args:
        spec: "nuclei:FILE" or "nuclei:FILE,STAIN" with FILE a zip file next to its table, "hc18:FILE" with FILE an
            .npz file, or "masks:FOLDER"; files are relative to `data_dir`.
        task: Specifies the labels, and the size and color that images are converted to.
        data_dir: Folder of data files.

    Raises:
        UserError: The data is missing, corrupt or does not match the task.
    """
    kind, _, place = spec.partition(":")
    readers: dict[str, Callable[[], MaskedImages]] = {
        "nuclei": lambda: _read_nuclei(place, task, data_dir),
        "hc18": lambda: _read_heads(data_dir / place, task),
        "masks": lambda: _read_folder(Path(place), task),
    }
    if kind not in readers:
        raise UserError(
            f"data spec {spec!r}: expected nuclei:FILE, hc18:FILE or masks:FOLDER for the task {task.kind!r}"
        )
    images = readers[kind]()
    if not images:
        raise UserError(f"data spec {spec!r}: contains no image")
    if task.measure is not None and any(image.spacing is None or image.reference is None for image in images):
        raise UserError(f"{spec}: task.measure requires row_mm, column_mm and reference_mm for each image")
    return images


def _read_nuclei(place: str, task: SegmentationTask, data_dir: Path) -> MaskedImages:
    name, _, stain = place.partition(",")
    path = data_dir / name
    reader = _reader(task)
    images = []
    try:
        with path.with_suffix(".csv").open(newline="", encoding="utf-8") as table, zipfile.ZipFile(path) as file:
            for row in csv.DictReader(table):
                if stain and row["stain"] != stain:
                    continue
                pixels = _decode(file.read(f"{row['name']}.png"), row["name"], reader)
                labels = _decode_labels(file.read(f"{row['name']}_label.png"), f"{row['name']}_label.png")
                images.append(MaskedImage(row["name"], row["group"], pixels, labels[None], _nuclei_kind(row)))
    except FileNotFoundError as error:
        raise UserError(f"{error.filename} is missing; --data-dir or MEDSERVE_DATA names its folder") from error
    except (OSError, zipfile.BadZipFile, zlib.error, KeyError) as error:
        raise UserError(f"{path} and its table do not belong together, or are corrupt: {error}") from error
    return tuple(images)


def _nuclei_kind(row: Mapping[str, str]) -> str:
    """Returns the kind of an image: the large stained images are of cytology, all others are of tissue or cultures."""
    if row["stain"] == "fluorescence":
        return "fluorescence"
    return "stained cytology" if int(row["width"]) >= _CYTOLOGY_WIDTH else "stained tissue"


def _read_heads(path: Path, task: SegmentationTask) -> MaskedImages:
    try:
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as file:
            arrays = {name: file[name] for name in ("images", "masks", "files", "subject", "pixel_mm", "hc_mm")}
    except FileNotFoundError as error:
        raise UserError(f"{path} is missing; --data-dir or MEDSERVE_DATA names its folder") from error
    except (ValueError, OSError, EOFError, zipfile.BadZipFile, zlib.error, KeyError) as error:
        raise UserError(f"{path} is not a file of HC18 images: {error}") from error
    height, width = arrays["images"].shape[1:]
    if task.fixed is None or (task.fixed.height, task.fixed.width) != (height, width):
        raise UserError(
            f"{path}: has images of {height} x {width}; set task.fixed.height and task.fixed.width to these"
        )
    # The images are reduced from 540 x 800 pixels, to which the pixel size refers.
    scale = np.array([540 / height, 800 / width])
    return tuple(
        MaskedImage(
            str(name),
            f"subject {subject}",
            pixels[..., None],
            mask.astype(np.int32)[None],
            spacing=(float(size * scale[0]), float(size * scale[1])),
            reference=float(reference),
        )
        for name, subject, pixels, mask, size, reference in zip(
            *(arrays[key] for key in ("files", "subject", "images", "masks", "pixel_mm", "hc_mm")), strict=True
        )
    )


def _read_folder(folder: Path, task: SegmentationTask) -> MaskedImages:
    """Reads NAME.png (or JPEG, TIFF, DICOM) next to NAME_LABEL.png for each label, and groups.csv if there is one."""
    if not folder.is_dir():
        raise UserError(f"{folder}: is not a folder")
    files = {path.stem: path for path in visible(folder) if path.is_file() and path.name != "groups.csv"}
    masks = {f"{name}_{label}" for name in files for label in task.labels} & set(files)
    table = _read_groups(folder / "groups.csv")
    reader = ImageReader(Target(None, None, task.color), ImageLimits())
    images = []
    for name in sorted(set(files) - masks):
        pixels = _decode(files[name].read_bytes(), str(files[name]), reader)
        labels = np.stack([_label_file(folder, files, name, label, pixels.shape[:2]) for label in task.labels])
        row = table.get(name, {})
        if table and not row:
            raise UserError(f"{folder / 'groups.csv'}: has no row for the image {name!r}")
        sizes = [_number(row, column, folder / "groups.csv") for column in _COLUMNS[3:]]
        spacing = None if sizes[0] is None or sizes[1] is None else (sizes[0], sizes[1])
        image = MaskedImage(name, row.get("group") or name, pixels, labels, row.get("kind", ""), spacing, sizes[2])
        images.append(_fitted(image, task))
    return tuple(images)


def _label_file(
    folder: Path, files: Mapping[str, Path], name: str, label: str, size: tuple[int, ...]
) -> NDArray[np.int32]:
    path = files.get(f"{name}_{label}")
    if path is None or path.suffix.lower() not in _MASK_TYPES:
        raise UserError(
            f"{folder}: {name} has no mask; expected {name}_{label}.png, gray with 8 or 16 bits: 0 for background, "
            "otherwise the number of the object"
        )
    labels = _decode_labels(path.read_bytes(), str(path))
    if labels.shape != size:
        raise UserError(f"{path}: is {labels.shape[0]} x {labels.shape[1]}, but its image is {size[0]} x {size[1]}")
    return labels


def _fitted(image: MaskedImage, task: SegmentationTask) -> MaskedImage:
    """Stretches an image and its masks to the task's fixed size, if it has one."""
    if task.fixed is None:
        return image
    height, width = task.fixed.height, task.fixed.width
    pixels = image.pixels[..., 0] if task.channels == 1 else image.pixels
    masks = [Image.fromarray(mask).resize((width, height), Image.Resampling.NEAREST) for mask in image.labels]
    spacing = image.spacing
    if spacing is not None:
        spacing = (spacing[0] * pixels.shape[0] / height, spacing[1] * pixels.shape[1] / width)
    return image._replace(
        pixels=_reader(task).fit(Image.fromarray(pixels), []),
        labels=np.stack([np.asarray(mask, np.int32) for mask in masks]),
        spacing=spacing,
    )


def _read_groups(path: Path) -> dict[str, dict[str, str]]:
    if not path.is_file():
        return {}
    with path.open(newline="", encoding="utf-8-sig") as file:
        table = csv.DictReader(file)
        if unknown := sorted(set(table.fieldnames or ()) - set(_COLUMNS)):
            raise UserError(f"{path}: has a column {unknown[0]!r}; expected name and any of {', '.join(_COLUMNS[1:])}")
        if "name" not in (table.fieldnames or ()):
            raise UserError(f"{path}: has no column 'name'; expected name and any of {', '.join(_COLUMNS[1:])}")
        return {row["name"]: {key: value or "" for key, value in row.items()} for row in table}


def _number(row: Mapping[str, str], column: str, path: Path) -> float | None:
    if not (text := row.get(column, "")):
        return None
    try:
        number = float(text)
    except ValueError:
        number = 0.0
    if not 0 < number < float("inf"):
        raise UserError(f"{path}: {column} of {row['name']} is {text!r}, expected a number above 0")
    return number


def _reader(task: SegmentationTask) -> ImageReader:
    return ImageReader(task.target, ImageLimits())


def _decode(data: bytes, name: str, reader: ImageReader) -> NDArray[np.uint8]:
    try:
        pixels, _ = reader.read(data)
    except ImageRefused as error:
        raise UserError(f"{name}: {error}") from error
    return pixels


def _decode_labels(data: bytes, name: str) -> NDArray[np.int32]:
    """Returns the numbers of the objects, int32 [height, width]."""
    try:
        image = Image.open(io.BytesIO(data))
        if image.mode not in {"1", "L", "I;16", "I"}:
            raise UserError(f"{name}: has the mode {image.mode}, expected gray with 8 or 16 bits")
        return np.asarray(image).astype(np.int32)
    except (OSError, Image.DecompressionBombError) as error:
        raise UserError(f"{name}: is not an image: {error}") from error
