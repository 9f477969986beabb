"""Small synthetic data sets of images with masks, and recipes that train on them in seconds."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

# Neither is a multiple of the network's stride or of the tiles.
HEIGHT, WIDTH = 45, 50
# Distance between rows and between columns in mm.
SPACING = (0.5, 0.4)

DISKS = """
name = "disks"
seed = 1

[data]
spec = "{spec}"
description = "made up"

[split]
validation_groups = ["dish 2", "dish 3"]
test_groups = ["dish 4", "dish 5"]

[network]
name = "u-net"
widths = [8, 16]

[training]
epochs = 4
batch_size = 8
learning_rate = 2e-2
loss = "segmentation"
schedule = "one-cycle"
members = 2

[crops]
height = 32
width = 32
per_epoch = 64
flip = "both"

[segmentation_loss]
dice = 1.0
distance = 1.0

[task]
kind = "image-segmentation"
color = "rgb"
labels = ["disk"]
objects = "touching"
tiling = {{ max_side = 32, margin = 4 }}

[manifest]
title = "Disks"
description = "Finds disks."
intended_use = "Tests."
license = "Apache-2.0"
"""
# The largest object of an image, whose circumference is measured.
MEASURED = {
    'name = "disks"': 'name = "heads"',
    "distance = 1.0": "",
    'color = "rgb"': 'color = "gray"',
    'objects = "touching"': 'objects = "largest"\nmeasure = {{ name = "circumference" }}',
    "tiling = {{ max_side = 32, margin = 4 }}": 'fixed = {{ height = 32, width = 48, resampling = "bilinear" }}',
    "members = 2": "",
}


def write_disks(folder: Path, number: int = 12) -> Path:
    """Writes images of several disks, some of which touch, in six groups; returns a recipe for them."""
    random = np.random.default_rng(0)
    rows = []
    for index in range(number):
        objects = np.zeros((HEIGHT, WIDTH), np.int32)
        for disk in range(6):
            draw(objects, disk + 1, random.uniform(0, HEIGHT), random.uniform(0, WIDTH), *[random.uniform(4, 7)] * 2)
        _write(folder / "masks", f"{index:02}", objects, random, "disk")
        rows.append([f"{index:02}", f"dish {index % 6}", ("even", "odd")[index % 2]])
    _write_groups(folder / "masks", ["name", "group", "kind"], rows)
    return _write_recipe(folder, DISKS)


def write_heads(folder: Path, number: int = 12) -> Path:
    """Writes images of one ellipse each, with its circumference in mm; returns a recipe that measures it."""
    random = np.random.default_rng(0)
    rows = []
    for index in range(number):
        objects = np.zeros((HEIGHT, WIDTH), np.int32)
        down, across = random.uniform(10, 16, 2)
        draw(objects, 1, HEIGHT / 2, WIDTH / 2, down, across)
        _write(folder / "masks", f"{index:02}", objects, random, "disk")
        angles = np.linspace(0, 2 * np.pi, 1000)
        outline = np.stack([down * SPACING[0] * np.cos(angles), across * SPACING[1] * np.sin(angles)])
        length = np.hypot(*np.diff(outline)).sum()
        rows.append([f"{index:02}", f"dish {index % 6}", *map(str, SPACING), f"{length:.3f}"])
    _write_groups(folder / "masks", ["name", "group", "row_mm", "column_mm", "reference_mm"], rows)
    text = DISKS
    for old, new in MEASURED.items():
        text = text.replace(old, new)
    return _write_recipe(folder, text)


def draw(objects: NDArray[np.int32], number: int, y: float, x: float, down: float, across: float) -> None:
    """Draws an ellipse into the background of an array of objects."""
    rows, columns = np.indices(objects.shape) + 0.5
    inside = ((rows - y) / down) ** 2 + ((columns - x) / across) ** 2 <= 1
    objects[inside & (objects == 0)] = number


def _write(folder: Path, name: str, objects: NDArray[np.int32], random: np.random.Generator, label: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    gray = np.where(objects > 0, 170, 60) + random.normal(0, 12, objects.shape)
    pixels = np.repeat(gray.clip(0, 255).astype(np.uint8)[..., None], 3, axis=2)
    Image.fromarray(pixels).save(folder / f"{name}.png")
    Image.fromarray(objects.astype(np.uint16)).save(folder / f"{name}_{label}.png")


def _write_groups(folder: Path, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    lines = [",".join(row) for row in (columns, *rows)]
    (folder / "groups.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")


def _write_recipe(folder: Path, text: str) -> Path:
    path = folder / "recipe.toml"
    path.write_text(text.format(spec=f"masks:{folder / 'masks'}"), encoding="utf-8")
    return path
