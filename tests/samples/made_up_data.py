"""Small synthetic data sets for the training commands."""

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from medserve_training.recipes.recipe import read_recipe

SCHEMA = """
[outcome]
time_column = "days"
time_unit = "days"
event_column = "dead"
event_value = 1
censored_value = 0
description = "death"

[[features]]
name = "size"
column = "size"
description = "Size"
unit = "mm"
minimum = 0
maximum = 100

[[features]]
name = "sex"
column = "sex"
description = "Sex"
categories = ["female", "male"]
values = ["F", "M"]
"""
# The minimum that can be trained.
QUICK = ("--set", "training.epochs=1", "--set", "training.members=1")
SMALL_NETWORK = ("--set", "training.epochs=1", "--set", "network.widths=[2, 2, 2]")


def write_cohort(
    folder: Path, times: Sequence[float], events: Sequence[bool], sizes: Sequence[float] | None = None
) -> str:
    """Writes a table of patients with its schema; returns the data spec."""
    random = np.random.default_rng(0)
    number = len(times)
    chosen = random.integers(0, 101, number) if sizes is None else sizes
    rows = [
        f"{size},{sex},{time:g},{int(event)}"
        for size, sex, time, event in zip(chosen, random.choice(["F", "M"], number), times, events, strict=True)
    ]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "cohort.toml").write_text(SCHEMA, encoding="utf-8")
    (folder / "cohort.csv").write_text("\n".join(["size,sex,days,dead", *rows]) + "\n", encoding="utf-8")
    return f"csv:{folder / 'cohort.csv'}"


def survival_times(number: int, seed: int = 0) -> list[float]:
    """Returns times whose median is 3 years."""
    times: list[float] = (np.random.default_rng(seed).exponential(1600, number).astype(int) + 1).tolist()
    return times


def survival_recipe(folder: Path, spec: str) -> Path:
    """Writes the packaged survival recipe for another cohort."""
    text = re.sub(r"subgroups = .*", "", read_recipe("breast-cancer-risk")).replace('spec = "gbsg"', f'spec = "{spec}"')
    path = folder / "survival.toml"
    path.write_text(text, encoding="utf-8")
    return path


def noise(label: int, number: int) -> NDArray[np.uint8]:
    """Returns a distinct image for each index, 28 x 28."""
    random = np.random.default_rng([label, number])
    return np.clip(random.normal(100 + 20 * label, 30, (28, 28)), 0, 255).astype(np.uint8)


def flat(label: int, number: int) -> NDArray[np.uint8]:
    """Returns the same image for all of a class, 28 x 28."""
    del number
    return np.full((28, 28), 50 + 100 * label, dtype=np.uint8)


def write_pictures(folder: Path, counts: Sequence[int], *, identical: bool = False) -> tuple[str, Path]:
    """Writes class folders c0, c1, ... of images; returns the data spec and a recipe for it."""
    labels = [f"c{index}" for index in range(len(counts))]
    for index, (label, count) in enumerate(zip(labels, counts, strict=True)):
        (folder / "pictures" / label).mkdir(parents=True)
        for number in range(count):
            pixels = flat(index, number) if identical else noise(index, number)
            Image.fromarray(pixels).save(folder / "pictures" / label / f"{number:03}.png")
    spec = f"folder:{folder / 'pictures'}"
    named = ", ".join(f'"{label}"' for label in labels)
    text = re.sub(r"labels = .*", f"labels = [{named}]", read_recipe("digits"))
    recipe = folder / "pictures.toml"
    recipe.write_text(text.replace('spec = "digits"', f'spec = "{spec}"'), encoding="utf-8")
    return spec, recipe


def files_of(folder: Path) -> dict[str, bytes | None]:
    """Returns everything below a folder: the content of files, None for folders."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() if path.is_file() else None
        for path in sorted(folder.rglob("*"))
    }
