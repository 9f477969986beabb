"""Loads images with masks, and splits them by group."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from medserve_training.data.masks.files import read_masks
from medserve_training.data.masks.image import MaskedImage, MaskedImages
from medserve_training.data.splits import Splits
from medserve_training.errors import UserError
from medserve_training.recipes.recipe import Recipe, Split
from medserve_training.recipes.segmentation_settings import SegmentationTask


def load_masks(recipe: Recipe, task: SegmentationTask, data_dir: Path) -> Splits[MaskedImages]:
    """Loads and splits the images that a recipe's data spec names.

    Args:
        recipe: Specifies the data, the split and the seed.
        task: Specifies the labels, and the size and color that images are converted to.
        data_dir: Folder of data files.

    Raises:
        UserError: The data is missing, corrupt or does not match the task, or a split is empty.
    """
    return split_by_group(read_masks(recipe.data.spec, task, data_dir), recipe.split, recipe.seed, recipe.data.spec)


def split_by_group(images: MaskedImages, split: Split, seed: int, spec: str) -> Splits[MaskedImages]:
    """Splits images so that those of a group stay together.

    Args:
        images: All images.
        split: The groups of validation and test, or the fractions of images to fill with random groups.
        seed: Seed of the random choice.
        spec: The data spec, for messages.

    Raises:
        UserError: A named group does not exist, or a split is empty.
    """
    groups = [image.name if split.by == "image" else image.group for image in images]
    chosen = {
        name: set(named) for name, named in (("test", split.test_groups), ("validation", split.validation_groups))
    }
    if unknown := sorted((chosen["test"] | chosen["validation"]) - set(groups)):
        raise UserError(f"{spec}: split names the group {unknown[0]!r}; the data has {', '.join(sorted(set(groups)))}")
    if not split.test_groups:
        chosen = _random_groups(groups, split, seed)
    parts: dict[str, list[MaskedImage]] = {"train": [], "validation": [], "test": []}
    for image, group in zip(images, groups, strict=True):
        part = next((name for name, named in chosen.items() if group in named), "train")
        parts[part].append(image)
    for name, part_images in parts.items():
        if not part_images:
            raise UserError(
                f"{spec}: no images are left for {name}: {len(images)} images in {len(set(groups))} groups; at least "
                "three groups are needed, since all images of a group are in the same split"
            )
    return Splits(tuple(parts["train"]), tuple(parts["validation"]), tuple(parts["test"]))


def _random_groups(groups: Sequence[str], split: Split, seed: int) -> dict[str, set[str]]:
    """Returns random groups that together have about the requested fractions of the images, at least one each."""
    names, sizes = np.unique(np.array(groups), return_counts=True)
    order = iter(np.random.default_rng(seed).permutation(len(names)).tolist())
    chosen: dict[str, set[str]] = {}
    for part, fraction in (("test", split.test), ("validation", split.validation)):
        taken, count = set[str](), 0
        while count < max(1, round(fraction * len(groups))) and (index := next(order, None)) is not None:
            taken.add(str(names[index]))
            count += int(sizes[index])
        chosen[part] = taken
    return chosen
